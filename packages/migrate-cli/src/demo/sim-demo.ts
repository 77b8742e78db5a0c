/**
 * The demo without a hypervisor: a simulated guest, moved there and back by every strategy. Two hosts in this
 * process, each with both agents, on real sockets over loopback.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SourceAgentOptions } from '@vmferry/agent-core/config';
import { createLogger } from '@vmferry/agent-core/log';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { migrateRequestSchema } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import { guestFileSchema } from '@vmferry/memsim/guest-file/schema';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { serveOnLoopback } from '../loopback.ts';
import { formatRate, formatSize } from '../units.ts';
import type { DemoMove, DemoResult, QemuDemoOptions } from './qemu-demo.ts';

const STRATEGIES = ['precopy', 'postcopy', 'hybrid', 'auto'] as const;

/** As a gigabit network has it. */
const BYTES_PER_SEC = 125_000_000;
/** What the guest does before each move. */
const SETTLE_MS = 500;

const GUEST: GuestDefinition = {
  file: guestFileSchema.parse({
    name: 'demo',
    memory: '256MiB',
    vcpus: 2,
    content: { zero: 0.5, text: 0.375, random: 0.125 },
    workload: {
      kind: 'mix',
      parts: [
        { kind: 'uniform', pagesPerSec: '8MiB/s', region: { first: 0, pages: '16MiB' } },
        { kind: 'read-mostly', readsPerSec: 500, pagesPerSec: 20 },
      ],
    },
  }),
  traces: {},
};

interface Host {
  readonly name: string;
  readonly simulation: SimulationHost;
  readonly source: SourceAgent;
  readonly url: string;
  close(): Promise<void>;
}

/** Rejects when it cannot be set up, or was aborted. */
export async function runSimulatedDemo({ say, signal }: QemuDemoOptions): Promise<DemoResult> {
  const stateDir = await mkdtemp(join(tmpdir(), 'vmferry-demo-'));
  const token = randomBytes(32).toString('hex');
  const hosts: Host[] = [];
  try {
    for (const name of ['a', 'b']) hosts.push(await startHost(`host ${name}`, stateDir, token));
    return await moveAround(hosts, say, signal);
  } finally {
    await Promise.all(hosts.map((host) => host.close()));
    await rm(stateDir, { recursive: true, force: true });
  }
}

async function startHost(name: string, stateDir: string, token: string): Promise<Host> {
  const simulation = new SimulationHost([GUEST]);
  const options: SourceAgentOptions = {
    stateDir,
    token,
    insecure: false,
    log: createLogger({ level: 'silent', role: 'cli' }),
  };
  const source = new SourceAgent(options, { simulation });
  const dest = new DestAgent(options, { simulation });
  const server = await serveOnLoopback(dest, { token, log: options.log });
  return {
    name,
    simulation,
    source,
    url: server.url,
    close: async () => {
      await source.close();
      await dest.close();
      await server.close();
      await simulation.close();
    },
  };
}

async function moveAround(
  hosts: readonly Host[],
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<DemoResult> {
  const { name, memory } = GUEST.file;
  const moves: DemoMove[] = [];
  let [here, there] = hosts as [Host, Host];
  say(`a simulated guest of ${formatSize(memory)}: real bytes over real sockets, and no hypervisor`);
  await here.simulation.source(name);
  for (const strategy of STRATEGIES) {
    say(`${strategy}: ${here.name} to ${there.name}`);
    await settle(signal);
    const request = migrateRequestSchema.parse({
      guest: `sim:${name}`,
      to: there.url,
      strategy,
      maxBandwidth: BYTES_PER_SEC,
    });
    const report = await ended(here.source.migrate(request), signal);
    moves.push({ strategy, from: here.name, to: there.name, report, client: null });
    if (report.outcome === 'completed' || report.error?.guestRunsOn === 'dest') [here, there] = [there, here];
  }
  return {
    setting: [
      `Guest: simulated, ${formatSize(memory)}, half of it filled (75 % text-like, 25 % random), ` +
        '8 MiB/s written to 16 MiB, 500 pages a second read anywhere',
      `Hosts: both in this process, over loopback at ${formatRate(BYTES_PER_SEC)}`,
    ],
    moves,
    verdict: await verdict(here, there),
  };
}

async function ended(migration: RunningMigration, signal: AbortSignal): Promise<MigrationReport> {
  const cancel = (): void => migration.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  const report = await migration.done;
  signal.removeEventListener('abort', cancel);
  signal.throwIfAborted();
  return report;
}

async function verdict(here: Host, there: Host): Promise<DemoResult['verdict']> {
  const { name } = GUEST.file;
  const machine = here.simulation.machine(name);
  if (!machine?.running || there.simulation.machine(name)?.running) {
    return { sound: false, words: `The guest should run on ${here.name}, and only there.` };
  }
  const found = await machine.verify();
  const { pages, writes, reads } = found.findings;
  if (!found.sound) return { sound: false, words: `The guest is damaged: ${found.why}.` };
  return {
    sound: true,
    words:
      `After every move all ${pages} pages and the device state were what the guest's workload must have ` +
      `produced, and they are after ${writes} writes and ${reads} reads.`,
  };
}

function settle(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(new Error('the demo was interrupted'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, SETTLE_MS);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}
