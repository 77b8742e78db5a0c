import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

/** Machine types that a message lists. */
const SHOWN = 8;

export function machineRule({ shape }: DomainFacts, { machine, host }: HostFacts): Finding[] {
  if (machine.supported) return [];
  const family = shape.machine.replace(/-[\d.]+$/, '');
  const near = machine.offered.filter((name) => name.startsWith(family)).sort(byVersion);
  const offers = near.length === 0 ? '' : ` It has ${near.slice(0, SHOWN).join(', ')}.`;
  return [
    refusal(
      'E_MACHINE_UNKNOWN',
      `${host.name} cannot run a ${shape.virtType} guest of the machine type ${shape.machine} (${shape.architecture}): ${machine.why}`,
      `Install a QEMU on the destination that has this machine type.${offers}`,
    ),
  ];
}

/** The newest first. */
function byVersion(a: string, b: string): number {
  return b.localeCompare(a, 'en', { numeric: true });
}

/** libvirt starts what the domain names, and so it has to be one that this host knows. */
export function emulatorRule({ shape }: DomainFacts, { emulators, host }: HostFacts): Finding[] {
  const { emulator } = shape;
  if (emulator === undefined || emulators.includes(emulator)) return [];
  const known = emulators.length === 0 ? 'none' : emulators.join(', ');
  return [
    refusal(
      'E_MACHINE_UNKNOWN',
      `the domain names the emulator ${emulator}, which ${host.name} does not know (${known})`,
      `Install it there and list it under libvirt.emulators in the destination agent's configuration, or change it with --dest-xml.`,
    ),
  ];
}

/** Arguments that nobody but QEMU understands come from the other host: this one must have agreed to them. */
export function ownArgumentsRule({ shape }: DomainFacts, { ownArgumentsAllowed }: HostFacts): Finding[] {
  if (!shape.ownArguments || ownArgumentsAllowed) return [];
  return [
    refusal(
      'E_REFUSED',
      'the domain brings arguments for QEMU of its own (qemu:commandline), which the destination agent does not take',
      "Do without them, or set libvirt.allowQemuArguments in the destination agent's configuration.",
    ),
  ];
}

export function deviceKindsRule({ shape }: DomainFacts, { kinds, host }: HostFacts): Finding[] {
  return shape.kinds.flatMap(({ device, aspect, value }) => {
    const offered = kinds.get(`${device}/${aspect}`);
    if (offered === undefined || offered.includes(value)) return [];
    return [
      refusal(
        'E_DEVICE_UNKNOWN',
        `the guest has a ${device} of the ${wordOf(aspect)} "${value}", which QEMU on ${host.name} does not have`,
        `Install QEMU's part for it on the destination, or take the device off the guest.`,
      ),
    ];
  });
}

function wordOf(aspect: string): string {
  return { modelType: 'model', backendModel: 'back-end' }[aspect] ?? aspect;
}
