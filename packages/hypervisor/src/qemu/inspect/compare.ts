import { GuestError } from '@vmferry/engine/errors';
import type { CpuDescription, GuestDescription, RamBlock } from '@vmferry/engine/guest';

/**
 * Every difference for which the destination would refuse the source's stream, or take it and run another
 * machine. Both values are in each message.
 */
export function compareForMigration(
  source: GuestDescription,
  dest: GuestDescription,
  { postcopy }: { readonly postcopy: boolean },
): GuestError[] {
  return [
    ...differ('the hypervisor', source.kind, dest.kind, 'Name a destination guest of the same kind.'),
    ...differ(
      'the machine type',
      source.machine,
      dest.machine,
      `Start the destination with -machine ${source.machine}.`,
    ),
    ...differ(
      'the number of vCPUs',
      source.vcpus,
      dest.vcpus,
      `Start the destination with ${source.vcpus} vCPUs, hot-plugged ones included.`,
    ),
    ...compareCpus(source.cpu, dest.cpu),
    ...differ(
      'the memory size',
      inBytes(source.memoryBytes),
      inBytes(dest.memoryBytes),
      `Start the destination with ${inBytes(source.memoryBytes)} of memory, hot-plugged devices included.`,
    ),
    ...compareBlocks(source.blocks, dest.blocks, postcopy),
    ...sameMemory(source, dest),
  ];
}

/** A guest goes on using what it found when it booted. QEMU does not look. */
function* compareCpus(
  source: CpuDescription | undefined,
  dest: CpuDescription | undefined,
): Generator<GuestError> {
  if (source === undefined || dest === undefined) return;
  const there = new Map(dest.features.map(({ word, bits }) => [word, bits]));
  const missing = source.features.flatMap(({ word, bits }) => {
    const lacking = (bits & ~(there.get(word) ?? 0)) >>> 0;
    return lacking === 0 ? [] : [`${word} 0x${lacking.toString(16)}`];
  });
  if (missing.length === 0) return;
  yield mismatch(
    `the destination's CPU (${dest.model}) lacks features that the source's (${source.model}) has: CPUID ${missing.join(', ')}`,
    'Start both with the same -cpu, of a model that both hosts (and both versions of QEMU) have.',
  );
}

function* compareBlocks(
  source: readonly RamBlock[],
  dest: readonly RamBlock[],
  postcopy: boolean,
): Generator<GuestError> {
  const there = new Map(dest.map((block) => [block.name, block]));
  const here = new Set(source.map((block) => block.name));
  for (const block of source) {
    const other = there.get(block.name);
    if (other === undefined) {
      yield mismatch(
        `RAM block ${block.name} (${inBytes(block.bytes)}) is on the source and not on the destination`,
        'Give the destination the same devices, memory back-ends and firmware, at the same addresses.',
      );
      continue;
    }
    if (!isResizable(block.name)) {
      yield* differ(
        `the size of RAM block ${block.name}`,
        inBytes(block.bytes),
        inBytes(other.bytes),
        'Give the destination the same device options, and firmware or option ROM files of the same size.',
      );
    }
    if (postcopy) {
      yield* differ(
        `the host page size of RAM block ${block.name}`,
        inBytes(block.hostPageBytes),
        inBytes(other.hostPageBytes),
        'Back the memory by the same kind of pages on both sides, or use --strategy precopy.',
      );
    }
  }
  for (const block of dest) {
    if (here.has(block.name) || isResizable(block.name)) continue;
    yield mismatch(
      `RAM block ${block.name} (${inBytes(block.bytes)}) is on the destination and not on the source`,
      'Give the destination the same devices as the source and no more.',
    );
  }
}

/** Both would write to the same pages: the older copy on its way goes over what the guest has written since. */
function* sameMemory(source: GuestDescription, dest: GuestDescription): Generator<GuestError> {
  const here = new Map(source.sharedMemory?.map(({ file, block }) => [file, block]));
  for (const { block, path, file } of dest.sharedMemory ?? []) {
    const other = here.get(file);
    if (other === undefined) continue;
    yield mismatch(
      `RAM block ${block} of the destination and ${other} of the source are the same memory: ${path} (share=on)`,
      "Give the destination's memory back-end a file of its own, or share=off.",
    );
  }
}

/** QEMU's generated ROMs (ACPI tables): the stream brings their size, and the destination grows to it. */
function isResizable(name: string): boolean {
  return name.startsWith('/rom@');
}

function differ(
  what: string,
  source: string | number,
  dest: string | number,
  remedy: string,
): readonly GuestError[] {
  if (source === dest) return [];
  return [mismatch(`${what} differs: ${source} on the source, ${dest} on the destination`, remedy)];
}

function mismatch(message: string, remedy: string): GuestError {
  return new GuestError('E_GUEST_MISMATCH', message, remedy);
}

function inBytes(size: number): string {
  const mebibytes = size / (1024 * 1024);
  return Number.isInteger(mebibytes) ? `${mebibytes} MiB` : `${size} bytes`;
}
