/** Disks that are volumes of libvirt's storage pools. What they are copied to: `copies.ts`. */
import { isCopied } from '../copied-disks.ts';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

export function poolsRule(facts: DomainFacts, { volumes, host }: HostFacts): Finding[] {
  return facts.shape.disks.flatMap((disk) => {
    const { target, source, optional } = disk;
    if (source.type !== 'volume') return [];
    const of = `disk ${target} is a volume of the storage pool "${source.pool}"`;
    switch (volumes.get(target)?.found) {
      case 'no-pool':
        return [
          refusal(
            'E_FILE_MISSING',
            `${of}, which ${host.name} does not have`,
            'Define and start one of that name there (virsh pool-define, pool-start), or name another one with --dest-xml.',
          ),
        ];
      case 'inactive-pool':
        return [
          refusal(
            'E_FILE_MISSING',
            `${of}, which is not active on ${host.name}`,
            `Start it there (virsh pool-start ${source.pool}).`,
          ),
        ];
      case 'nothing': {
        if (isCopied(disk, facts)) return [];
        const message = `${of}, and ${host.name} has no volume "${source.volume}" in it`;
        if (optional) {
          const remedy = 'libvirt goes on without it (its startupPolicy says so).';
          return [warning('E_FILE_MISSING', message, remedy)];
        }
        return [
          refusal(
            'E_FILE_MISSING',
            message,
            `See that both pools are of the same storage, and refresh that one (virsh pool-refresh ${source.pool}), or copy the disks with --copy-storage all.`,
          ),
        ];
      }
      default:
        return [];
    }
  });
}
