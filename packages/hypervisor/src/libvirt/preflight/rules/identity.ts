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

/** libvirt makes files of a domain's name: its log, its monitor's socket. */
export function nameRule({ shape }: DomainFacts): Finding[] {
  if (!/[/\n]/.test(shape.name) && shape.name.trim() !== '') return [];
  return [
    refusal(
      'E_REFUSED',
      `a domain cannot have the name ${JSON.stringify(shape.name)}: libvirt takes none with "/" or of blanks alone`,
      'Name another one with --dest-guest libvirt:NAME.',
    ),
  ];
}

export function takenRule({ shape }: DomainFacts, { domains, host }: HostFacts): Finding[] {
  return domains.flatMap((domain) => {
    const [sameName, sameUuid] = [domain.name === shape.name, domain.uuid === shape.uuid];
    const state = domain.state === 'inactive' ? 'is defined' : 'runs';
    if (!sameName && !sameUuid) return [];
    if (sameUuid && domain.state === 'coming-in') {
      return [
        refusal(
          'E_NAME_TAKEN',
          `a migration of the domain with the UUID ${shape.uuid} into ${host.name} has not ended`,
          'Wait for its end, or end it where it comes from (virsh domjobabort).',
        ),
      ];
    }
    if (sameName && sameUuid && domain.state === 'inactive') {
      return [
        warning(
          'E_NAME_TAKEN',
          `the domain ${shape.name} is defined on ${host.name} already, and its definition there is replaced if the domain stays`,
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
        domain.state === 'active'
          ? 'Find out which of the two is the guest, and destroy the other.'
          : `Undefine that one (virsh undefine ${shellWord(domain.name)}), if it is not needed.`,
      ),
    ];
  });
}
