/**
 * Which QEMU each host of a test has. `VMFERRY_QEMU_A` and `VMFERRY_QEMU_B` name them; without, both have the one
 * that is installed. A guest starts on host a and moves to host b.
 */
import { run } from './process.ts';

export type HostName = 'a' | 'b';

const INSTALLED = 'qemu-system-x86_64';

export class VersionsError extends Error {
  readonly code = 'TEST_QEMU_VERSIONS';
}

/** The host that a guest is on after so many moves. */
export function hostAfter(moves: number): HostName {
  return moves % 2 === 0 ? 'a' : 'b';
}

/** A path, or a name to be looked up in PATH. */
export function qemuOf(host: HostName): string {
  return process.env[host === 'a' ? 'VMFERRY_QEMU_A' : 'VMFERRY_QEMU_B'] || INSTALLED;
}

/** The path of one that takes the installed one's place; "" for none. */
export function replacedQemu(host: HostName): string {
  return qemuOf(host) === INSTALLED ? '' : qemuOf(host);
}

/** Of `QEMU emulator version 7.2.22 (Debian …)`, the first numbers. */
export async function versionOf(binary: string): Promise<{ readonly major: number; readonly text: string }> {
  const { stdout } = await run([binary, '--version']);
  const text = /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (text === undefined) throw new VersionsError(`${binary} tells no version: ${stdout}`);
  return { major: Number.parseInt(text, 10), text };
}

/** Whether it may run a guest again when its post-copy breaks before anything is promised (10.2 and newer). */
export async function givesPostcopyUp(binary: string): Promise<boolean> {
  return (await versionOf(binary)).text.localeCompare('10.2', 'en', { numeric: true }) > 0;
}

let common: Promise<Readonly<Record<string, string>>> | undefined;

/** `pc` and `q35` mean another machine in each version: between two, the newest that both know. */
export async function machineType(machine: string): Promise<string> {
  if (qemuOf('a') === qemuOf('b')) return machine;
  common ??= commonTypes();
  return (await common)[machine] ?? machine;
}

async function commonTypes(): Promise<Readonly<Record<string, string>>> {
  const [a, b] = await Promise.all([qemuOf('a'), qemuOf('b')].map(machines));
  const newest = (prefix: string): string => {
    const both = [...a!].filter((type) => type.startsWith(prefix) && b!.has(type));
    const last = both.sort((x, y) => x.localeCompare(y, 'en', { numeric: true })).at(-1);
    if (last === undefined) throw new VersionsError(`${qemuOf('a')} and ${qemuOf('b')} share no ${prefix}*`);
    return last;
  };
  return { pc: newest('pc-i440fx-'), q35: newest('pc-q35-') };
}

async function machines(binary: string): Promise<ReadonlySet<string>> {
  const { stdout } = await run([binary, '-machine', 'help']);
  return new Set(stdout.split('\n').flatMap((line) => /^\S+/.exec(line)?.[0] ?? []));
}
