import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';
import { inUnits } from './words.ts';

/** Memory of ordinary pages. */
export function memoryRule({ shape }: DomainFacts, { memory, host }: HostFacts): Finding[] {
  const huge = shape.hugePages.reduce((sum, { bytes }) => sum + bytes, 0);
  const needed = Math.max(0, shape.memoryBytes - huge);
  const { totalBytes, availableBytes } = memory;
  if (needed > totalBytes || (shape.memoryLocked && needed > availableBytes)) {
    return [
      refusal(
        'E_NO_MEMORY',
        `the guest needs ${inUnits(needed)} of memory, and ${host.name} has ${inUnits(totalBytes)}, ${inUnits(availableBytes)} of them available`,
        'Choose a host with more memory, or move other guests away from it first.',
      ),
    ];
  }
  if (needed <= availableBytes) return [];
  return [
    warning(
      'E_NO_MEMORY',
      `the guest may use ${inUnits(needed)} of memory, and ${host.name} has ${inUnits(availableBytes)} available of ${inUnits(totalBytes)}`,
      'Move other guests away from it first, or be sure that they do not use what they may.',
    ),
  ];
}

export function hugePagesRule({ shape }: DomainFacts, facts: HostFacts): Finding[] {
  const needed = new Map<number, number>();
  for (const { pageBytes, bytes } of shape.hugePages) {
    const size = pageBytes === 0 ? facts.defaultHugePageBytes : pageBytes;
    if (size === undefined) {
      const message = `the guest's memory is of huge pages, and ${facts.host.name} has none`;
      return [refusal('E_NO_MEMORY', message, 'Set huge pages up on the destination (vm.nr_hugepages).')];
    }
    needed.set(size, (needed.get(size) ?? 0) + bytes);
  }
  return [...needed].flatMap(([pageBytes, bytes]) => {
    const wanted = Math.ceil(bytes / pageBytes);
    const free = facts.pages.find((each) => each.pageBytes === pageBytes)?.free;
    if (free !== undefined && free >= wanted) return [];
    const there = free === undefined ? 'has no pages of this size' : `has ${free} free`;
    return [
      refusal(
        'E_NO_MEMORY',
        `the guest needs ${wanted} huge pages of ${inUnits(pageBytes)}, and ${facts.host.name} ${there}`,
        `Set them up on the destination (/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB/nr_hugepages).`,
      ),
    ];
  });
}
