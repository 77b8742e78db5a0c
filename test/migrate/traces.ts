/** What a migration could leave behind: files of its own, and settings in a QEMU that are not its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach } from 'vitest';
import type { QemuProcess } from '../rig/qemu.ts';

/** Gives the test file a temporary directory of its own, so that what is left there can be told. */
export function usePrivateTmp(): void {
  const outer = process.env['TMPDIR'];
  const dir = mkdtempSync(join(tmpdir(), 'vmt-'));
  process.env['TMPDIR'] = dir;
  afterAll(() => {
    if (outer === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = outer;
    rmSync(dir, { recursive: true, force: true });
  });
}

/** Names of what the product left in the temporary directory. */
export async function leftInTmp(): Promise<string[]> {
  const names = await readdir(tmpdir());
  return names.filter((name) => name.startsWith('vmferry-') && !name.startsWith('vmferry-test-'));
}

export type Later = <T>(thing: T, cleanup: (thing: T) => Promise<unknown>) => T;

/** Things that end with the test, the last one first. */
export function useLater(): Later {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  return (thing, cleanup) => {
    cleanups.push(() => cleanup(thing));
    return thing;
  };
}

/** All that an operator could have set for migrations in this QEMU. */
export async function settingsOf({ qmp }: QemuProcess): Promise<unknown> {
  const capabilities = await qmp.execute('query-migrate-capabilities');
  return { capabilities, parameters: await qmp.query('query-migrate-parameters') };
}

/** The state of a destination that waits and that nobody has touched. */
export async function waitingState(qemu: QemuProcess): Promise<unknown> {
  const { status } = await qemu.qmp.query('query-migrate');
  return { run: await qemu.runState(), migration: status ?? 'none', settings: await settingsOf(qemu) };
}
