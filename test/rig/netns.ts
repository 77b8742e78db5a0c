import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLeftover, ownPrefix } from './owner.ts';
import { run } from './process.ts';

let rigs = 0;

/** A prefix for the names of one rig's namespaces, unlike any other's. */
export function rigPrefix(): string {
  return `${ownPrefix()}-${++rigs}`;
}

export async function addNamespace(name: string): Promise<void> {
  await run(['ip', 'netns', 'add', name]);
  // Silence: nothing in a rig speaks unless a test makes it.
  await sysctl(name, { 'net.ipv6.conf.default.disable_ipv6': '1', 'net.ipv6.conf.all.disable_ipv6': '1' });
  await ip(name, ['link set lo up']);
}

export async function sysctl(namespace: string, values: Readonly<Record<string, string>>): Promise<void> {
  const settings = Object.entries(values).map(([key, value]) => `${key}=${value}`);
  await run(['sysctl', '-q', '-w', ...settings], { namespace });
}

/** Several `ip` commands in a namespace, without the word `ip`. */
export async function ip(namespace: string, commands: readonly string[]): Promise<void> {
  await run(['ip', '-n', namespace, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** Ends what still runs in a namespace and removes it. One that is gone is fine. */
export async function removeNamespace(name: string): Promise<void> {
  if (!namespaces().includes(name)) return;
  const { stdout } = await run(['ip', 'netns', 'pids', name]);
  for (const pid of stdout.split('\n').filter((line) => line !== '')) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
  await run(['ip', 'netns', 'del', name]);
}

function namespaces(): string[] {
  try {
    return readdirSync('/run/netns');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Removes the namespaces and working folders of runs whose process is gone; returns the namespaces' names. */
export async function cleanupLeftovers(): Promise<string[]> {
  const removed = namespaces().filter(isLeftover);
  for (const name of removed) await removeNamespace(name);
  for (const name of readdirSync(tmpdir()).filter(isLeftover)) {
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
  return removed;
}
