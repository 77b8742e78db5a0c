import type { DomainInterface } from '../../xml/domain-shape.ts';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

export function networksRule({ shape }: DomainFacts, facts: HostFacts): Finding[] {
  return shape.interfaces.flatMap((nic) => [
    ...networkFindings(nic, facts),
    ...filterFindings(nic, facts),
    ...sameMacFindings(nic, shape.uuid, facts),
  ]);
}

/** A bridge hands on to one of them only, whichever has sent last. */
function sameMacFindings(nic: DomainInterface, uuid: string, facts: HostFacts): Finding[] {
  const { neighbours, networks, host } = facts;
  const bridge = bridgeOf(nic, networks);
  if (bridge === undefined || nic.mac === '') return [];
  return neighbours
    .filter((each) => each.uuid !== uuid)
    .filter(({ interfaces }) =>
      interfaces.some(({ mac, ...its }) => mac === nic.mac && bridgeOf({ mac, ...its }, networks) === bridge),
    )
    .map(({ name }) =>
      warning(
        'E_NO_NETWORK',
        `the guest's interface ${nic.mac} comes to ${bridge} on ${host.name}, where the domain ${name} has one with the same MAC address`,
        'Give one of the two another MAC address: what is sent to it would come to either.',
      ),
    );
}

/** What stands for all that are on it: the host's bridge or device, or a network that has none of its own. */
function bridgeOf({ type, source }: DomainInterface, networks: HostFacts['networks']): string | undefined {
  switch (type) {
    case 'network':
      return networks.get(source)?.bridge || `the network ${source}`;
    case 'bridge':
    case 'direct':
      return source;
    default:
      return undefined;
  }
}

function filterFindings({ filter, mac, type }: DomainInterface, facts: HostFacts): Finding[] {
  const { networkFilters, host } = facts;
  if (filter === '' || networkFilters === undefined || networkFilters.has(filter)) return [];
  return [
    refusal(
      'E_NO_NETWORK',
      `the guest's interface ${mac || type} has the network filter "${filter}", which libvirt on ${host.name} does not have`,
      'Define it there (virsh nwfilter-define).',
    ),
  ];
}

function networkFindings(nic: DomainInterface, facts: HostFacts): Finding[] {
  const of = `the guest's interface ${nic.mac || nic.type}`;
  switch (nic.type) {
    case 'network':
      return onNetwork(nic, of, facts);
    case 'bridge':
    case 'direct':
      return onDevice(nic, of, facts);
    case 'ethernet':
      if (nic.tap === '' || facts.interfaces === undefined || facts.interfaces.has(nic.tap)) return [];
      return [
        refusal(
          'E_NO_NETWORK',
          `${of} uses the tap ${nic.tap}, which ${facts.host.name} does not have`,
          `Make it there (ip tuntap add ${nic.tap} mode tap), or name another one with --dest-xml.`,
        ),
      ];
    case 'user':
      return [
        warning(
          'E_NO_NETWORK',
          `${of} is behind QEMU's own user network, whose connections end with the migration`,
          'Put it on a bridge or a network if they matter.',
        ),
      ];
    default:
      return [];
  }
}

function onNetwork({ source }: DomainInterface, of: string, facts: HostFacts): Finding[] {
  const { networks, interfaces, host } = facts;
  const network = networks.get(source);
  if (network?.active === true) {
    const { bridge } = network;
    if (bridge === '' || interfaces === undefined || interfaces.has(bridge)) return [];
    return [
      refusal(
        'E_NO_NETWORK',
        `${of} is on libvirt's network "${source}", whose bridge ${bridge} ${host.name} does not have`,
        `Set the bridge up there, or start the network again if libvirt makes it (virsh net-destroy ${source}, net-start ${source}).`,
      ),
    ];
  }
  return network === undefined
    ? [
        refusal(
          'E_NO_NETWORK',
          `${of} is on libvirt's network "${source}", which ${host.name} does not have`,
          'Define it there (virsh net-define), or name another one with --dest-xml.',
        ),
      ]
    : [
        refusal(
          'E_NO_NETWORK',
          `${of} is on libvirt's network "${source}", which is not active on ${host.name}`,
          `Start it there (virsh net-start ${source}).`,
        ),
      ];
}

function onDevice({ type, source }: DomainInterface, of: string, { interfaces, host }: HostFacts): Finding[] {
  const what = type === 'bridge' ? 'bridge' : 'device';
  if (interfaces === undefined) {
    const message = `whether ${host.name} has the ${what} ${source} of ${of} is not known`;
    return [warning('E_NO_NETWORK', message, 'Check it with ip link.')];
  }
  const isBridge = interfaces.get(source);
  if (isBridge === undefined) {
    return [
      refusal(
        'E_NO_NETWORK',
        `${of} is on the ${what} ${source}, which ${host.name} does not have`,
        'Set it up there under the same name, or name another one with --dest-xml.',
      ),
    ];
  }
  if (type !== 'bridge' || isBridge) return [];
  return [
    refusal(
      'E_NO_NETWORK',
      `${of} is on the bridge ${source}, and ${source} on ${host.name} is no bridge`,
      'Make it one there, or name another one with --dest-xml.',
    ),
  ];
}
