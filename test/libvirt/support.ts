/** What tests of faults between two libvirtds have in common. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import type { SideConnection, SourceGuest } from '@vmferry/engine/guest';
import { parseJournal } from '@vmferry/engine/journal/records';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { LibvirtSourceGuest } from '@vmferry/hypervisor/libvirt/source/guest';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { expect } from 'vitest';
import type { LibvirtHost } from '../rig/libvirt.ts';
import { ManagedProcess, within } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';
import type { MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';
import { overriding } from '../simulated/support.ts';

const MAIN = join(repoRoot(), 'packages/migrate-cli/dist/main.js');

export interface CommandOptions {
  /** Of the configuration's libvirt, in place of the host's own. */
  readonly settings?: object;
  /** A command that runs another: where in the host's namespaces. */
  readonly inside?: readonly string[];
}

/** vmferry in a process of its own, for the libvirt of a host; ends with the test. */
export async function command(
  { libvirts, later }: ReturnType<typeof useTwoLibvirts>,
  host: HostName,
  args: readonly string[],
  { settings = {}, inside = [] }: CommandOptions = {},
): Promise<ManagedProcess> {
  const { dir, agentSettings } = libvirts.hosts[host];
  const config = join(dir, 'agent.json');
  const libvirt = { ...agentSettings, ...settings };
  await writeFile(config, JSON.stringify({ stateDir: join(dir, 'state'), libvirt }));
  const vmferry = [process.execPath, MAIN, ...args, '--config', config];
  return later(new ManagedProcess([...inside, ...vmferry]), (each) => each.stop());
}

/** The first that it prints which matches. */
export async function says(child: ManagedProcess, matches: RegExp): Promise<RegExpExecArray> {
  let said = '';
  const found = new Promise<RegExpExecArray>((resolve) => {
    for (const output of [child.child.stdout, child.child.stderr]) {
      output.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        const match = matches.exec(said);
        if (match) resolve(match);
      });
    }
  });
  return await within(30_000, () => `${String(matches)} of ${said}`, found);
}

/** Another destination agent was started in place of one that was killed. */
export async function settledByDest({ dir, agentSettings }: LibvirtHost): Promise<void> {
  const log = createLogger({ level: 'fatal', role: 'dest' });
  const stateDir = join(dir, 'state');
  await new DestAgent({ stateDir, insecure: false, log, libvirt: agentSettings }).settle();
}

/** What the journals of a source agent that was killed say once another one was started. */
export async function settledBySource({ dir, agentSettings }: LibvirtHost): Promise<(string | undefined)[]> {
  const stateDir = join(dir, 'state');
  const log = createLogger({ level: 'fatal', role: 'source' });
  await new SourceAgent({ stateDir, insecure: false, log, libvirt: agentSettings }).settle();
  const journals = (await readdir(join(stateDir, 'journal'))).filter((name) => name.includes('-source.'));
  const texts = journals.map((name) => readFile(join(stateDir, 'journal', name), 'utf8'));
  return (await Promise.all(texts)).map((text) => parseJournal(text).records.at(-1)?.state);
}

/** A domain that leaves a host. What its hypervisors connect to the destination's is heard of before it is carried. */
export async function overheard(
  { agentSettings }: LibvirtHost,
  uri: string,
  heard: (connection: SideConnection) => unknown,
): Promise<SourceGuest> {
  const options = libvirtOptions(agentSettings);
  const guest = await LibvirtSourceGuest.connect(uri.slice('libvirt:'.length), options);
  const carried = async function* () {
    for await (const connection of guest.sideConnections) {
      await heard(connection);
      yield connection;
    }
  };
  return overriding<SourceGuest>(guest, { sideConnections: carried() });
}

/** As if nothing had been tried. */
export async function runsOnTheSource(domain: MovingDomain): Promise<void> {
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toMatch(/^a: running \(.*\), b: gone$/);
  await domain.places[0]!.nextTick();
  expect(domain.watcher.handovers()).toEqual([]);
}
