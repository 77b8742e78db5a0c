/** A migration between two QEMUs that something happens to, and what must be true of it afterwards. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { parseJournal } from '@vmferry/engine/journal/records';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { expect } from 'vitest';
import {
  type BootSectorOptions,
  checkBootSector,
  incomingBootSector,
  nextPass,
  startBootSector,
} from '../guest/boot-sector.ts';
import { within } from '../rig/process.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { type Agents, type AgentsOptions, startAgents } from './agents.ts';
import type { Gate } from './faulty-guest.ts';
import { type Later, leftInTmp, settingsOf } from './traces.ts';

export interface Scene {
  readonly agents: Agents;
  readonly src: QemuProcess;
  readonly dst: QemuProcess;
  readonly watcher: RunWatcher;
  /** Of the source's QEMU, as they were. */
  readonly settings: unknown;
}

interface SceneOptions extends AgentsOptions {
  readonly guest?: BootSectorOptions;
  /** Where it differs from the source's. */
  readonly dest?: BootSectorOptions;
  readonly gate?: Gate;
}

/** What a file of tests begins its migrations with; all of it ends with the test. */
export function useScenes(later: Later) {
  /** Two QEMUs, the boot-sector guest in the first, and agents for both. */
  async function scene({ guest = {}, dest = guest, gate, ...parts }: SceneOptions = {}): Promise<Scene> {
    const src = later(await startBootSector(guest, { name: 'src' }), (q) => q.stop());
    const dst = later(await incomingBootSector(dest, { name: 'dst' }), (q) => q.stop());
    return await between(src, dst, gate ? { ...parts, destParts: { guests: gate.guests } } : parts);
  }

  async function between(src: QemuProcess, dst: QemuProcess, parts: AgentsOptions = {}): Promise<Scene> {
    const agents = later(await startAgents({}, parts), (a) => a.close());
    const watcher = later(await RunWatcher.watch([src, dst]), (w) => w.close());
    return { agents, src, dst, watcher, settings: await settingsOf(src) };
  }

  return { scene, between };
}

type Request = Partial<Parameters<Agents['migrate']>[0]>;

/** Slow enough for whatever is to happen in the first round or among post-copy's pages. */
export const SLOW: Request = { maxBandwidth: 4e6, compress: 'off' };
/** The boot-sector guest writes to all of its memory all the time. */
export const ANY_DOWNTIME: Request = { maxDowntimeMs: 60_000 };

export function migrate({ agents, src, dst }: Scene, request: Request = {}): RunningMigration {
  return agents.migrate({ guest: `qemu:${src.productQmp}`, destGuest: `qemu:${dst.productQmp}`, ...request });
}

export interface Outcome {
  readonly outcome: 'failed' | 'cancelled';
  readonly code: string;
  readonly says?: RegExp;
  readonly in?: string;
  readonly side?: 'source' | 'dest';
}

export function expectOutcome(report: MigrationReport, expected: Outcome): void {
  const { outcome, code, says = /\S/, in: failedIn, side } = expected;
  expect(report, JSON.stringify(report.error)).toMatchObject({ outcome });
  expect(exitStatus(report)).toBe(outcome === 'failed' ? 1 : 130);
  expect(report.error).toMatchObject({
    code,
    message: expect.stringMatching(says),
    remedy: expect.stringMatching(/\S/),
    ...(failedIn ? { phase: failedIn } : {}),
    ...(side ? { side } : {}),
  });
}

/** The guest goes on at the source with all its memory, as if nothing had been, and nothing is left anywhere. */
export async function goesOnAtSource(
  scene: Scene,
  report: MigrationReport,
  expected: Outcome,
): Promise<void> {
  const { src, dst, watcher, settings, agents } = scene;
  expectOutcome(report, expected);
  expect(report.error?.guestRunsOn).toBe('source');
  await nextPass(src);
  expect((await checkBootSector(src)).bad).toEqual([]);
  expect(await settingsOf(src)).toEqual(settings);
  await within(20_000, () => 'end of the destination QEMU', dst.process.exited);
  const { spans } = await watcher.finish();
  expect(new Set(spans.map(({ qemu }) => qemu))).toEqual(new Set(['src']));
  expect(await leftInTmp()).toEqual([]);
  expect(await lastRecord(agents, 'source')).toBe('rolled-back');
}

export async function lastRecord({ stateDir }: Agents, role: 'source' | 'dest'): Promise<string | undefined> {
  const dir = join(stateDir, 'journal');
  const [name] = (await readdir(dir)).filter((file) => file.endsWith(`-${role}.journal`));
  if (name === undefined) return undefined;
  return parseJournal(await readFile(join(dir, name), 'utf8')).records.at(-1)?.state;
}

/** Looks again until it is so: files tell nobody that they changed. */
export async function until(what: string, look: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`it never came to this: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
