/** What the demo on real guests needs of the host: programs, and the Debian packages that have them. */
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

const PROGRAMS: ReadonlyMap<string, string> = new Map([
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['cc', 'gcc'],
  ['strip', 'binutils'],
  ['cpio', 'cpio'],
  ['xz', 'xz-utils'],
  ['setpriv', 'util-linux'],
  ['ip', 'iproute2'],
  ['sysctl', 'procps'],
]);

export interface Missing {
  readonly programs: readonly string[];
  readonly packages: readonly string[];
}

/** Undefined when nothing is. */
export async function findMissing(env: NodeJS.ProcessEnv): Promise<Missing | undefined> {
  // Some users' PATH lacks the places where Debian has `ip` and `sysctl`.
  const dirs = [...(env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'].filter((dir) => dir !== '');
  const found = await Promise.all(
    [...PROGRAMS].map(async ([program, name]) => ({ program, name, there: await isIn(dirs, program) })),
  );
  const missing = found.filter(({ there }) => !there);
  if (missing.length === 0) return undefined;
  return { programs: missing.map(({ program }) => program), packages: missing.map(({ name }) => name) };
}

async function isIn(dirs: readonly string[], program: string): Promise<boolean> {
  const tries = dirs.map((dir) => access(join(dir, program), constants.X_OK));
  return (await Promise.allSettled(tries)).some(({ status }) => status === 'fulfilled');
}
