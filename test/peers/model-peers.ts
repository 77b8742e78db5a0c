/** Guests whose migrations the simulator predicts, and how each looks in its eyes. */
import { existsSync } from 'node:fs';
import type { ChosenStrategy, MigrateRequest } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import type { Calibration } from '@vmferry/memsim/forecast/calibrate';
import type { SimulatedGuest } from '@vmferry/memsim/simulator/model';
import { BENCH_GUEST } from '../guest/linux.ts';
import { runVmferryMigration } from './vmferry-migration.ts';

export type Compress = MigrateRequest['compress'];

export interface ModelPeer {
  readonly name: string;
  /** By vmferry, between two hosts; `rate` as `tc` writes it. */
  migrate(strategy: ChosenStrategy, rate: string, compress: Compress): Promise<MigrationReport>;
  /** The same by pre-copy on an unshaped link, with a guest that rests as far as it can: to measure the hosts. */
  calibrationRun(compress: Compress): Promise<MigrationReport>;
  /** The guest in the simulator's words, with what the calibration told of its memory. */
  guest(calibration: Calibration): SimulatedGuest;
}

const MIB_PAGES = 256;

/** The real one; undefined where there is no QEMU. */
export function qemuPeer(): ModelPeer | undefined {
  const paths = (process.env['PATH'] ?? '').split(':');
  if (!paths.some((path) => existsSync(`${path}/qemu-system-x86_64`))) return undefined;
  const { memoryMiB, fillMiB, workingSetMiB, dirtyMBps, checkMBps } = BENCH_GUEST;
  return {
    name: 'QEMU',
    migrate: async (strategy, rate, compress) =>
      (await runVmferryMigration({ strategy, rate, args: ['--compress', compress] })).report,
    calibrationRun: async (compress) =>
      (
        await runVmferryMigration({
          strategy: 'precopy',
          guest: { ...BENCH_GUEST, workingSetMiB: 1, dirtyMBps: 1 },
          args: ['--compress', compress],
        })
      ).report,
    guest: ({ zero, left }) => ({
      name: 'bench',
      memoryBytes: memoryMiB * 2 ** 20,
      vcpus: 1,
      // Whatever is no page of zeroes packs as the calibration's pages did on average.
      content: { zero, text: 1 - zero, random: 0, duplicate: 0, textLeft: left, writtenLeft: left },
      workload: {
        kind: 'mix',
        parts: [
          {
            kind: 'uniform',
            pagesPerSec: (dirtyMBps * 1e6) / 4096,
            region: { first: 0, pages: workingSetMiB * MIB_PAGES },
          },
          {
            kind: 'scan',
            readsPerSec: (checkMBps * 1e6) / 4096,
            region: { first: 0, pages: fillMiB * MIB_PAGES },
          },
        ],
      },
      ranSeconds: 0,
      dirtyLog: 'round',
      // Its dirty log under TCG (before 9.0) holds for one round only.
      oneLiveRound: true,
    }),
  };
}

/** The simulated one; undefined as long as the agents cannot move it. */
export function simulatedPeer(): ModelPeer | undefined {
  return undefined;
}
