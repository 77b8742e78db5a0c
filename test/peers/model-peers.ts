/** Guests whose migrations the simulator predicts, and how each looks in its eyes. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChosenStrategy, MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { Calibration } from '@vmferry/memsim/forecast/calibrate';
import type { ContentMix } from '@vmferry/memsim/guest-file/schema';
import { BLANK, type Content } from '@vmferry/memsim/simulator/content';
import { type Costs, DEFAULT_COSTS } from '@vmferry/memsim/simulator/costs';
import type { Place, SimulatedGuest } from '@vmferry/memsim/simulator/model';
import { BENCH_GUEST } from '../guest/linux.ts';
import { twoHosts } from '../rig/two-hosts.ts';
import { hostedAgents } from './hosted-agents.ts';
import { runVmferryMigration } from './vmferry-migration.ts';

export type Compress = MigrateRequest['compress'];

/** What may differ from one guest to another; each peer has its own for what is not said. */
export interface GuestSize {
  readonly memoryMiB?: number | undefined;
  readonly workingSetMiB?: number | undefined;
  /** Whole pages written, 10^6 bytes a second. */
  readonly dirtyMBps?: number | undefined;
}

export interface ModelPeer {
  readonly name: string;
  /** By vmferry, between two hosts; `rate` as `tc` writes it. */
  migrate(strategy: ChosenStrategy, rate: string, compress: Compress): Promise<MigrationReport>;
  /** The same on an unshaped link, with a guest that rests as far as it can: to measure the hosts. */
  calibrationRun(strategy: ChosenStrategy, compress: Compress): Promise<MigrationReport>;
  /**
   * What is known of its kind: the size of the device state, for how long batches are read ahead (three that wait for
   * the link; a QEMU's reader and socket have as much again), and how long it goes on with a round that has begun (a
   * QEMU writes for 50 ms before it looks for what it was told, 530 pages that do not pack).
   */
  readonly costs: Pick<
    Costs,
    'deviceStateBytes' | 'bufferedMs' | 'discardUs' | 'heldBytes' | 'heldBatches' | 'leadMs' | 'leadBytes'
  >;
  /** The guest in the simulator's words, with what the calibration told of its memory. */
  guest(calibration: Calibration): SimulatedGuest;
}

const MIB_PAGES = 256;
/**
 * What QEMU's guest has where, in pages: its memory was looked at, twice with two seconds between (`pmemsave`). It is
 * the same after each boot. The kernel as it was loaded, packed; and at the end the kernel's page structs, 64 bytes for
 * each page, with what it unpacked.
 */
const KERNEL = { pages: 4096, held: { zero: 0.153, left: 0.977, hastyLeft: 0.983 } };
const TOP = { pages: 994, held: { zero: 0.043, left: 0.214, hastyLeft: 0.237 } };
const PAGE_STRUCT_BYTES = 64;
/** What the guest fills ends so many pages behind its size; from there up to the top nobody ever wrote. */
const BEFORE_FILLED = 19_654;
/** Where the first pages that it fills lie: those are what it writes. The last has room for all others. */
const FILLED_FIRST = [
  { first: 7680, pages: 512 },
  { first: 12_288, pages: 2396 },
  { first: 22_528, pages: Number.POSITIVE_INFINITY },
];

/** The real one; undefined where there is no QEMU. */
export function qemuPeer(size: GuestSize): ModelPeer | undefined {
  const paths = (process.env['PATH'] ?? '').split(':');
  if (!paths.some((path) => existsSync(`${path}/qemu-system-x86_64`))) return undefined;
  const bench = {
    ...BENCH_GUEST,
    memoryMiB: size.memoryMiB ?? BENCH_GUEST.memoryMiB,
    // Half of its memory, as the guest of the benchmarks.
    fillMiB: (size.memoryMiB ?? BENCH_GUEST.memoryMiB) / 2,
    workingSetMiB: size.workingSetMiB ?? BENCH_GUEST.workingSetMiB,
    dirtyMBps: size.dirtyMBps ?? BENCH_GUEST.dirtyMBps,
  };
  const { memoryMiB, fillMiB, workingSetMiB, dirtyMBps, checkMBps } = bench;
  const filled = { first: BEFORE_FILLED, pages: fillMiB * MIB_PAGES };
  const memoryPages = memoryMiB * MIB_PAGES;
  const places = placesOf(memoryPages, filled.first + filled.pages);
  const written = firstFilled(workingSetMiB * MIB_PAGES);
  const writesPerSec = (dirtyMBps * 1e6) / 4096;
  const readsPerSec = (checkMBps * 1e6) / 4096;
  return {
    name: 'QEMU',
    costs: {
      deviceStateBytes: 60_000,
      bufferedMs: 60,
      discardUs: 3,
      heldBytes: DEFAULT_COSTS.heldBytes,
      heldBatches: DEFAULT_COSTS.heldBatches,
      leadMs: 50,
      leadBytes: 2_100_000,
    },
    migrate: async (strategy, rate, compress) =>
      (await runVmferryMigration({ strategy, rate, guest: bench, args: ['--compress', compress] })).report,
    calibrationRun: async (strategy, compress) =>
      (
        await runVmferryMigration({
          strategy,
          guest: { ...bench, workingSetMiB: 1, dirtyMBps: 1 },
          args: ['--compress', compress],
        })
      ).report,
    guest: ({ zero, left, hastyLeft }) => ({
      name: 'bench',
      memoryBytes: memoryMiB * 2 ** 20,
      vcpus: 1,
      places,
      content: elsewhere(memoryPages, places, workingSetMiB * MIB_PAGES, { zero, left, hastyLeft }),
      workload: {
        kind: 'mix',
        parts: [
          ...written.map((region) => ({
            kind: 'uniform' as const,
            pagesPerSec: (writesPerSec * region.pages) / (workingSetMiB * MIB_PAGES),
            region,
          })),
          { kind: 'scan', readsPerSec, region: filled },
        ],
      },
      // Where it reads is taken to lie halfway.
      ranSeconds: filled.pages / 2 / readsPerSec,
      dirtyLog: 'round',
      // Its dirty log under TCG (before 9.0) holds for one round only.
      oneLiveRound: true,
    }),
  };
}

function placesOf(memoryPages: number, blankFrom: number): readonly Place[] {
  const top = TOP.pages + (memoryPages * PAGE_STRUCT_BYTES) / 4096;
  const blankPages = Math.max(0, memoryPages - top - blankFrom);
  return [
    { region: { first: 0, pages: KERNEL.pages }, held: KERNEL.held },
    { region: { first: blankFrom, pages: blankPages }, held: BLANK },
    { region: { first: memoryPages - top, pages: top }, held: TOP.held },
  ];
}

/** So many of the pages that the guest filled first. */
function firstFilled(pages: number): readonly { readonly first: number; readonly pages: number }[] {
  let left = pages;
  return FILLED_FIRST.flatMap((place) => {
    const here = Math.min(left, place.pages);
    left -= here;
    return here > 0 ? [{ first: place.first, pages: here }] : [];
  });
}

/** What is left of what the calibration told of all of memory: there one page packs as well as another. */
function elsewhere(
  memoryPages: number,
  places: readonly Place[],
  writtenPages: number,
  { zero, left, hastyLeft }: Pick<Calibration, 'zero' | 'left' | 'hastyLeft'>,
): Content {
  const sum = (of: (place: Place) => number): number => places.reduce((total, each) => total + of(each), 0);
  const raw = ({ region, held }: Place): number => region.pages * (1 - held.zero);
  const rawPages = (1 - zero) * memoryPages;
  const packs = (all: number, of: (place: Place) => number): number =>
    (all * rawPages - sum((place) => raw(place) * of(place))) / (rawPages - sum(raw));
  const textLeft = packs(left, ({ held }) => held.left);
  const zeroes = zero * memoryPages - sum(({ region, held }) => region.pages * held.zero);
  return {
    // What it writes was filled before, so all of its zeroes are elsewhere.
    ...textOr(Math.max(0, zeroes / (memoryPages - sum(({ region }) => region.pages) - writtenPages))),
    textLeft,
    textHastyLeft: packs(hastyLeft, ({ held }) => held.hastyLeft),
    writtenLeft: textLeft,
  };
}

/** Pages of zeroes, and others of which one packs as well as another. */
function textOr(zero: number): ContentMix {
  return { zero, text: 1 - zero, random: 0, duplicate: 0 };
}

const SIMULATED = {
  name: 'checked',
  memoryMiB: 512,
  // Half of what is not zero packs to little, half not at all.
  content: { zero: 0.3, text: 0.35, random: 0.35, duplicate: 0 },
  workingSetMiB: 16,
  dirtyMBps: 4.096,
  readsPerSec: 4000,
};

/** A page of zeroes that was written to holds a stamp and zeroes. */
const WRITTEN_ZEROES_LEFT = 0.058;

/** The simulated one, in agents of their own on both hosts. */
export function simulatedPeer(size: GuestSize): ModelPeer {
  const { name, readsPerSec } = SIMULATED;
  const memoryMiB = size.memoryMiB ?? SIMULATED.memoryMiB;
  const pagesPerSec = ((size.dirtyMBps ?? SIMULATED.dirtyMBps) * 1e6) / 4096;
  const region = { first: 0, pages: (size.workingSetMiB ?? SIMULATED.workingSetMiB) * MIB_PAGES };
  /** The same in a guest file and in the simulator's words. */
  const workload = (writes: number): SimulatedGuest['workload'] => ({
    kind: 'mix',
    parts: [
      { kind: 'uniform', pagesPerSec: writes, region },
      { kind: 'read-mostly', readsPerSec, pagesPerSec: 1 },
    ],
  });
  const move = async (
    strategy: ChosenStrategy,
    writes: number,
    compress: Compress,
    rate?: string,
  ): Promise<MigrationReport> => {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-model-'));
    const rig = await twoHosts(rate === undefined ? {} : { rate });
    try {
      const file = join(folder, 'guest.yaml');
      await writeFile(file, JSON.stringify(guestFile(writes)));
      const agents = await hostedAgents(rig, folder, { simulate: [file], rehearsed: true });
      return await agents.migrate(`sim:${name}`, `sim:${name}`, [
        ...['--strategy', strategy, '--compress', compress],
      ]);
    } finally {
      await rig.close();
      await rm(folder, { recursive: true, force: true });
    }
  };
  const guestFile = (writes: number) => ({
    name,
    memory: `${memoryMiB}MiB`,
    vcpus: 1,
    content: SIMULATED.content,
    workload: workload(writes),
  });
  return {
    name: 'simulated',
    migrate: (strategy, rate, compress) => move(strategy, pagesPerSec, compress, rate),
    costs: {
      deviceStateBytes: 16_500,
      bufferedMs: 30,
      discardUs: 0,
      heldBytes: 0,
      heldBatches: 0,
      leadMs: 0,
      leadBytes: 0,
    },
    calibrationRun: (strategy, compress) => move(strategy, 10, compress),
    guest: ({ zero, left, hastyLeft }) => ({
      name,
      memoryBytes: memoryMiB * 2 ** 20,
      vcpus: 1,
      content: {
        ...textOr(zero),
        textLeft: left,
        textHastyLeft: hastyLeft,
        writtenLeft: zero * WRITTEN_ZEROES_LEFT + (1 - zero) * left,
      },
      workload: workload(pagesPerSec),
      ranSeconds: 0,
      dirtyLog: 'round',
      oneLiveRound: false,
    }),
  };
}
