/**
 * A source or destination agent in a process of its own, for tests that kill it. It tells on standard output, one JSON
 * object a line, where its guest has got to, and can be told to wait there.
 *
 *     staged-agent ROLE OPTIONS     the agent's options as JSON
 *
 * It takes `{"hold": STEP}`, `{"go": true}` and, of a source, `{"migrate": REQUEST}` on standard input, and says
 * `{"url"}`, `{"at": STEP}`, `{"event"}` and `{"report"}`.
 */
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { DestAgentOptions } from '@vmferry/agent-core/config';
import { createLogger, type LogLevel } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { destGuests } from '@vmferry/dest-agent/guests';
import type { DestGuest, SourceGuest, SourceItem } from '@vmferry/engine/guest';
import { type MigrateRequestInput, migrateRequestSchema } from '@vmferry/engine/options';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { sourceGuests } from '@vmferry/source-agent/guests';
import { Listener } from '@vmferry/wire/listener';
import { overriding } from '../simulated/support.ts';
import type { DestStep, Step } from './steps.ts';

type Order = { readonly hold: Step } | { readonly go: true } | { readonly migrate: MigrateRequestInput };

const [role = '', optionsText = '{}'] = process.argv.slice(2);
const level = (process.env['VMFERRY_TEST_LOG'] ?? 'fatal') as LogLevel;
const log = createLogger({ level, role: role === 'source' ? 'source' : 'dest' });
const options: DestAgentOptions = { insecure: false, log, ...JSON.parse(optionsText) };

const holds = new Set<Step>();
let goOn: () => void = () => {};

/** In the same tick: whoever hears of it may kill the process. */
function tell(said: object): void {
  writeSync(1, `${JSON.stringify(said)}\n`);
}

async function pass(step: Step): Promise<void> {
  tell({ at: step });
  if (!holds.delete(step)) return;
  await new Promise<void>((resolve) => {
    goOn = resolve;
  });
}

/** What cannot wait stands still, with all of the process. */
function passNow(step: Step): void {
  tell({ at: step });
  if (holds.delete(step)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

async function* staged(items: AsyncIterable<SourceItem>): AsyncIterable<SourceItem> {
  for await (const item of items) {
    const { type } = item;
    if (type === 'stopped' || type === 'state-complete') await pass(type);
    yield item;
  }
}

function leaving(guest: SourceGuest): SourceGuest {
  const { sideConnections } = guest;
  const side = async function* () {
    for await (const connection of sideConnections!) {
      if (connection.kind !== 'nbd') await pass(connection.kind);
      yield connection;
    }
  };
  return overriding<SourceGuest>(guest, {
    ...(sideConnections ? { sideConnections: side() } : {}),
    open: async (...args) => staged(await guest.open(...args)),
    startPostcopy: async () => {
      await pass('start-postcopy');
      await guest.startPostcopy();
    },
    committed: () => {
      passNow('commit');
      guest.committed?.();
      passNow('committed');
    },
    forget: async (how) => {
      await pass('forget');
      await guest.forget(how);
    },
  });
}

/** Before a step of the guest's, and after. */
function around<A extends unknown[], R>(
  step: 'open' | 'ready' | 'run' | 'complete',
  call: (...args: A) => Promise<R>,
): (...args: A) => Promise<R> {
  return async (...args) => {
    await pass(step satisfies DestStep);
    const done = await call(...args);
    await pass(`${step}-done` satisfies DestStep);
    return done;
  };
}

function entering(guest: DestGuest): DestGuest {
  return overriding<DestGuest>(guest, {
    open: around('open', (...args) => guest.open(...args)),
    ready: around('ready', () => guest.ready()),
    run: around('run', (how) => guest.run(how)),
    complete: around('complete', () => guest.complete()),
    connectSide: async (kind) => {
      const there = await guest.connectSide!(kind);
      if (kind === 'ram') await pass('ram-there');
      return there;
    },
  });
}

async function startSource(): Promise<(order: Order) => void> {
  const guests = sourceGuests(new SimulationHost([]), options);
  const agent = new SourceAgent(options, { guests: async (uri) => leaving(await guests(uri)) });
  await agent.settle();
  tell({ url: '' });
  return (order) => {
    if (!('migrate' in order)) return;
    const migration = agent.migrate(migrateRequestSchema.parse(order.migrate));
    void (async () => {
      for await (const event of migration.events()) if (event.type !== 'finished') tell({ event });
      tell({ report: await migration.done });
    })();
  };
}

async function startDest(): Promise<void> {
  const guests = destGuests(options, new SimulationHost([]));
  const agent = new DestAgent(options, { guests: async (uri) => entering(await guests(uri)) });
  await agent.settle();
  const { url } = await Listener.listen('ws://127.0.0.1:0', {
    handlers: {
      '/v1/migration': (socket, peer) => agent.acceptMigration(socket, peer),
      '/v1/data': (socket, peer) => agent.acceptMigration(socket, peer),
    },
  });
  tell({ url });
}

const migrate = role === 'source' ? await startSource() : await startDest();
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line) as Order;
  if ('hold' in order) holds.add(order.hold);
  else if ('go' in order) goOn();
  else migrate?.(order);
}
