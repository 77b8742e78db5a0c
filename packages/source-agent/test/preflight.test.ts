import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultLimits } from '@vmferry/agent-core/config';
import { createLogger } from '@vmferry/agent-core/log';
import { GuestError } from '@vmferry/engine/errors';
import type { SourceGuest } from '@vmferry/engine/guest';
import { type MigrateRequestInput, migrateRequestSchema } from '@vmferry/engine/options';
import { bytes } from '@vmferry/engine/units';
import { ControlChannel } from '@vmferry/wire/control';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import { newSession } from '@vmferry/wire/handshake';
import { Link } from '@vmferry/wire/link';
import { Listener } from '@vmferry/wire/listener';
import type { ControlMessage } from '@vmferry/wire/messages';
import { DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SourceGuestFactory } from '../src/guests.ts';
import { Preflight } from '../src/preflight.ts';

let stateDir: string;
const cleanups: (() => unknown)[] = [];
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'vmferry-preflight-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  rmSync(stateDir, { recursive: true });
});

const MiB = 1024 * 1024;
const never = <T>(): Promise<T> => new Promise(() => {});

function deferred<T>() {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** A destination agent that answers as it is told; what it is not told to answer it leaves unanswered. */
async function startPeer({ maxFrameBytes = 4 * MiB, accepts = true, rejects = '' } = {}) {
  const opened = deferred<ControlMessage<'open'>>();
  const links: Link[] = [];
  const accept = (socket: FrameSocket): void => {
    const link = new Link(socket, { name: 'peer', onFrame: (frame, from) => from.consumed(frame) });
    links.push(link);
    const control = new ControlChannel(link);
    control.onMessage = (message) => {
      switch (message.type) {
        case 'hello':
          control.send({
            ...{ type: 'welcome', version: 1, features: [], agent: 'test', ...newSession(randomBytes) },
            limits: { maxFrameBytes, windowBytes: 8 * MiB },
            wallClockMs: 1,
          });
          break;
        case 'attach':
          control.send({ type: 'attached', received: 0 });
          break;
        case 'clock':
          control.send({ type: 'clock-reply', t0: message.t0, t1: 1, t2: 1 });
          break;
        case 'open':
          opened.resolve(message);
          if (rejects !== '') {
            const reasons = [{ code: 'E_NAME_TAKEN', message: rejects, remedy: 'Take another.' }];
            control.send({ type: 'rejected', reasons, notes: [] });
          } else if (accepts) control.send({ type: 'accepted', hypervisorVersion: '1', nics: [], notes: [] });
      }
    };
  };
  const listener = await Listener.listen('ws://127.0.0.1:0', {
    handlers: { [MIGRATION_PATH]: accept, [DATA_PATH]: accept },
  });
  cleanups.push(() => listener.close());
  const gone = () => Promise.all(links.map((link) => link.closed));
  return { url: listener.url, opened: opened.promise, gone };
}

function fakeGuest(parts: Partial<SourceGuest> = {}, hostPageBytes = 4096) {
  const closed = deferred<void>();
  const guest = {
    describe: async () => ({
      ...{ kind: 'qemu', name: 'qemu:/web1', hypervisorVersion: '1', machine: 'pc', vcpus: 1 },
      memoryBytes: bytes(64 * MiB),
      blocks: [{ name: 'ram', bytes: bytes(64 * MiB), hostPageBytes: bytes(hostPageBytes) }],
      ...{ nics: [], running: true, oneLiveRound: false },
    }),
    blockers: async () => [],
    close: async () => closed.resolve(),
    ...parts,
  } as Partial<SourceGuest> as SourceGuest;
  return { guest, closed: closed.promise };
}

function preflight(
  url: string,
  guests: SourceGuestFactory,
  request: Partial<MigrateRequestInput> = {},
): { readonly preflight: Preflight; readonly notes: string[] } {
  const notes: string[] = [];
  const made = new Preflight({
    request: migrateRequestSchema.parse({ guest: 'qemu:/web1', to: url, ...request }),
    agent: { stateDir, insecure: false, log: createLogger({ level: 'silent', role: 'source' }) },
    guests,
    onPhase: () => {},
    onConnected: () => {},
    note: (text) => notes.push(text),
  });
  cleanups.push(() => made.close());
  return { preflight: made, notes };
}

/** What is said of its end. */
async function refusal(made: Preflight): Promise<unknown> {
  const thrown = await made.run().then(
    () => expect.unreachable('nothing was refused'),
    (error: unknown) => error,
  );
  const report = made.refusalOf(thrown);
  await made.close();
  return report;
}

describe('what is in the way on the source', () => {
  const bound = async () => [new GuestError('E_DEVICE_BOUND', 'a device', 'Detach it.')];
  const facts = async () => ({ facts: {}, notes: [] });

  test('is told with what the destination has against it', async () => {
    const { url } = await startPeer({ rejects: 'a name' });
    const { guest } = fakeGuest({ blockers: bound, preflight: facts });
    expect(await refusal(preflight(url, async () => guest).preflight)).toMatchObject({
      code: 'E_DEVICE_BOUND',
      side: 'source',
      message: 'a device; a name',
      remedy: 'Detach it; Take another.',
    });
  });

  test('is told without a destination that takes it or is not there, and without asking a hypervisor of its', async () => {
    const { url } = await startPeer();
    const gone = await Listener.listen('ws://127.0.0.1:0', { handlers: {} });
    await gone.close();
    for (const to of [url, gone.url]) {
      const { guest } = fakeGuest({ blockers: bound, preflight: facts });
      expect(await refusal(preflight(to, async () => guest).preflight)).toMatchObject({
        message: 'a device',
      });
    }
    const peer = await startPeer({ rejects: 'a name' });
    const { guest } = fakeGuest({ blockers: bound });
    expect(await refusal(preflight(peer.url, async () => guest).preflight)).toMatchObject({
      message: 'a device',
    });
  });
});

describe('a cancellation', () => {
  const cancelled = { code: 'E_CANCELLED', guestRunsOn: 'source' };

  test('waits for no hypervisor that does not answer, and lets go of it when it does', async () => {
    const { url } = await startPeer();
    const { guest, closed } = fakeGuest();
    const connecting = deferred<SourceGuest>();
    const made = preflight(url, () => connecting.promise).preflight;
    const report = refusal(made);
    made.cancel();
    expect(await report).toMatchObject(cancelled);
    connecting.resolve(guest);
    await closed;
  });

  test('waits for no description, and lets go of guest and destination', async () => {
    const peer = await startPeer();
    const asked = deferred<void>();
    const { guest, closed } = fakeGuest({
      describe: () => {
        asked.resolve();
        return never();
      },
    });
    const made = preflight(peer.url, async () => guest).preflight;
    const report = refusal(made);
    await asked.promise;
    made.cancel();
    expect(await report).toMatchObject(cancelled);
    await closed;
    await peer.gone();
  });

  test('waits for no answer of the destination', async () => {
    const peer = await startPeer({ accepts: false });
    const { guest, closed } = fakeGuest();
    const made = preflight(peer.url, async () => guest).preflight;
    const report = refusal(made);
    await peer.opened;
    made.cancel();
    expect(await report).toMatchObject(cancelled);
    await closed;
    await peer.gone();
  });

  test('is what is told, also where something was in the way besides', async () => {
    const { url } = await startPeer();
    const { guest } = fakeGuest();
    const made = preflight(url, async () => guest).preflight;
    made.cancel();
    expect(made.refusalOf(new GuestError('E_GUEST_BLOCKED', 'no', 'none'))).toMatchObject(cancelled);
    expect(await refusal(made)).toMatchObject(cancelled);
  });
});

describe('huge pages that no frame takes whole', () => {
  const small = { maxFrameBytes: MiB };
  const why =
    'RAM block ram is made of pages of 2097152 bytes, and the agents take frames of at most 1048576';

  test('are refused where post-copy is asked for', async () => {
    const peer = await startPeer(small);
    const { guest } = fakeGuest({}, 2 * MiB);
    const made = preflight(peer.url, async () => guest, { strategy: 'postcopy' }).preflight;
    expect(await refusal(made)).toMatchObject({ code: 'E_LIMIT', message: why, phase: 'preflight' });
  });

  test('move without post-copy where that is left open', async () => {
    const peer = await startPeer(small);
    const { guest } = fakeGuest({}, 2 * MiB);
    const { preflight: made, notes } = preflight(peer.url, async () => guest, { strategy: 'auto' });
    const departure = await made.run();
    expect(departure).toMatchObject({ postcopyObstacle: why, plan: { postcopy: false } });
    expect((await peer.opened).plan).toEqual({ postcopy: false });
    expect(notes).toEqual([`Post-copy is not possible here: ${why}`]);
  });

  test('move by post-copy where frames are as large as by default', async () => {
    const peer = await startPeer({ maxFrameBytes: defaultLimits().maxFrameBytes });
    const { guest } = fakeGuest({}, 2 * MiB);
    const made = preflight(peer.url, async () => guest, { strategy: 'postcopy' }).preflight;
    expect(await made.run()).toMatchObject({ postcopyObstacle: undefined, plan: { postcopy: true } });
  });
});
