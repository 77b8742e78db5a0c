/**
 * Where the blocks of a guest's memory lie in its QEMU's own address space.
 *
 * `info ramblock` says it from QEMU 8 on. Before, the way is longer: the flat view of the address space tells
 * which guest-physical range shows which part of which block, and `gpa2hva` where QEMU has mapped that.
 */
import type { RamBlock } from '@vmferry/engine/guest';
import { humanMonitor, type QmpExecutor } from '../qmp/schema.ts';
import { parseHostAddresses } from './ram-blocks.ts';

/** A stretch of guest-physical addresses that shows a stretch of one memory region, in bytes. */
export interface MappedRange {
  readonly start: number;
  /** The region's name, which is the block's own. */
  readonly region: string;
  /** Where in the region the stretch begins. */
  readonly offset: number;
}

/**
 * The host address of each block's first byte, by the block's name. Blocks that cannot be found for certain are
 * left out: such that the guest does not see at the moment, or that QEMU describes in another way.
 */
export async function locateBlocks(
  client: QmpExecutor,
  blocks: readonly RamBlock[],
): Promise<ReadonlyMap<string, number>> {
  const wanted = new Set(blocks.map(({ name }) => name));
  const told = parseHostAddresses(await humanMonitor(client, 'info ramblock'));
  if (told.size > 0) return new Map([...told].filter(([name]) => wanted.has(name)));
  const ranges = parseFlatView(await humanMonitor(client, 'info mtree -f'));
  const found = new Map<string, number>();
  for (const name of wanted) {
    const bases = new Set<number | undefined>();
    for (const range of ranges.filter(({ region }) => region === name)) {
      const text = await humanMonitor(client, `gpa2hva 0x${range.start.toString(16)}`);
      const address = parseHostAddress(text, name);
      bases.add(address === undefined ? undefined : address - range.offset);
    }
    // Every stretch has to lead to the same place.
    const [base] = bases;
    if (bases.size === 1 && base !== undefined && base > 0) found.set(name, base);
  }
  return found;
}

const rangeLine =
  /^\s*(?<start>[0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, (?:ram|rom|nv-ram)\): (?<region>.*?)(?: @(?<offset>[0-9a-f]{16}))?(?: KVM)?$/;

/** The memory that the guest's CPUs see, from `info mtree -f`. */
export function parseFlatView(text: string): MappedRange[] {
  const views = text.split(/^FlatView #\d+$/m);
  const memory = views.find((view) => /^ AS "memory", root: system$/m.test(view)) ?? '';
  const ranges: MappedRange[] = [];
  for (const line of memory.split(/\r?\n/)) {
    const { start, region, offset = '0' } = rangeLine.exec(line.trimEnd())?.groups ?? {};
    if (start === undefined || region === undefined) continue;
    ranges.push({ start: Number.parseInt(start, 16), region, offset: Number.parseInt(offset, 16) });
  }
  return ranges;
}

/** The answer of `gpa2hva`, if it speaks of this region. */
export function parseHostAddress(text: string, region: string): number | undefined {
  const found = /^Host virtual address for 0x[0-9a-f]+ \((?<name>.*)\) is 0x(?<address>[0-9a-f]+)/.exec(text);
  if (found?.groups?.['name'] !== region) return undefined;
  const address = Number.parseInt(found.groups['address'] ?? '', 16);
  return Number.isSafeInteger(address) ? address : undefined;
}
