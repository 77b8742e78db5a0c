import { shellWord } from '@vmferry/engine/by-hand';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

/** libvirt knows a host by its UUID and by its name, and refuses where either is the same. */
export function otherHostRule({ host: source }: DomainFacts, { host }: HostFacts): Finding[] {
  return [
    ...(source.uuid !== '' && source.uuid === host.uuid
      ? [
          refusal(
            'E_NAME_TAKEN',
            `both libvirtds say that they are the host with the UUID ${host.uuid}`,
            'Name another host; if they are two, give one another host_uuid in libvirtd.conf.',
          ),
        ]
      : []),
    ...(source.name === host.name
      ? [
          refusal(
            'E_NAME_TAKEN',
            `both hosts are called ${host.name}, and libvirt takes them for one`,
            'Name another host; if they are two, give one another hostname and restart its libvirtd.',
          ),
        ]
      : []),
  ];
}

export function takenRule({ shape }: DomainFacts, { domains, host }: HostFacts): Finding[] {
  return domains.flatMap((domain) => {
    const [sameName, sameUuid] = [domain.name === shape.name, domain.uuid === shape.uuid];
    const state = domain.active ? 'runs' : 'is defined';
    if (!sameName && !sameUuid) return [];
    if (sameName && sameUuid && !domain.active) {
      return [
        warning(
          'E_NAME_TAKEN',
          `${shape.name} is defined on ${host.name} already, and its definition there is replaced if the domain stays`,
          `Look at it before (virsh dumpxml --inactive ${shellWord(shape.name)}) if it may differ.`,
        ),
      ];
    }
    if (!sameUuid) {
      return [
        refusal(
          'E_NAME_TAKEN',
          `a domain named ${shape.name} ${state} on ${host.name} already, with another UUID (${domain.uuid})`,
          `Rename or undefine that one, or give this one another name there with --dest-guest libvirt:NAME.`,
        ),
      ];
    }
    return [
      refusal(
        'E_NAME_TAKEN',
        `a domain with the UUID ${shape.uuid} ${state} on ${host.name} already${sameName ? '' : `, named ${domain.name}`}`,
        domain.active
          ? 'Find out which of the two is the guest, and destroy the other.'
          : `Undefine that one (virsh undefine ${shellWord(domain.name)}), if it is not needed.`,
      ),
    ];
  });
}
