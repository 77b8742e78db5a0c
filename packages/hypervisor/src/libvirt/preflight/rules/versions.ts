import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';
import { versionText } from './words.ts';

/** The first that carries RAM, RPC and disks over UNIX sockets. */
const LEAST_LIBVIRT = 6_008_000;

export function versionsRule(domain: DomainFacts, { versions, host }: HostFacts): Finding[] {
  const sides = [
    { name: domain.host.name, version: domain.versions.libvirt },
    { name: host.name, version: versions.libvirt },
  ];
  const tooOld = sides
    .filter(({ version }) => version < LEAST_LIBVIRT)
    .map(({ name, version }) =>
      refusal(
        'E_HYPERVISOR_OLDER',
        `${name} has libvirt ${versionText(version)}, which cannot migrate over the agents' sockets`,
        `Update it to ${versionText(LEAST_LIBVIRT)} or newer.`,
      ),
    );
  return [
    ...tooOld,
    ...older('QEMU', domain.versions.hypervisor, versions.hypervisor, host.name),
    ...older('libvirt', domain.versions.libvirt, versions.libvirt, host.name),
  ];
}

/** Forwards is what is tried by those who make them; backwards often goes well. */
function older(what: string, there: number, here: number, name: string): Finding[] {
  if (minor(here) >= minor(there)) return [];
  return [
    warning(
      'E_HYPERVISOR_OLDER',
      `${what} on ${name} is older than the source's: ${versionText(here)}, not ${versionText(there)}`,
      'Update the destination first where you can; a guest that cannot be loaded there stays on the source.',
    ),
  ];
}

/** Releases that only mend something are alike. */
const minor = (version: number): number => Math.floor(version / 1000);
