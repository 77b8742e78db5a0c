/** What newer versions of QEMU do otherwise at the source, with one whose every answer the test decides on. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SourceItem } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QemuSourceGuest } from '../../src/qemu/source-guest.ts';
import { Ping } from '../../src/qemu/stream/format.ts';
import { ReturnPathDecoder, ReturnPathEncoder } from '../../src/qemu/stream/return-path.ts';
import { FakeMonitor } from './support/qmp/fake-monitor.ts';
import { recordedPostcopy } from './support/stream/outgoing.ts';

const BATCHES = { rawPages: 32, pages: 64 };
/** More than the sockets' buffers and the reader's together. */
const ONE_SPELL_BYTES = 3 * 1024 * 1024;

let outer: string | undefined;
let folder: string;
let monitor: FakeMonitor;
let guest: QemuSourceGuest;
let qemu: Socket;
let status: string;

beforeEach(async () => {
  outer = process.env['TMPDIR'];
  folder = mkdtempSync(join(tmpdir(), 'vmferry-leaves-'));
  process.env['TMPDIR'] = folder;
  status = 'active';
  monitor = await FakeMonitor.start();
  monitor.answer({
    'query-migrate-capabilities': () =>
      ['events', 'postcopy-ram'].map((capability) => ({ capability, state: true })),
    'query-migrate-parameters': () => ({
      'downtime-limit': 300,
      'max-bandwidth': 0,
      'max-postcopy-bandwidth': 0,
    }),
    'migrate-set-parameters': () => ({}),
    'object-add': () => ({}),
    'query-migrate': () => ({ status, ...(status === 'failing' ? { 'error-desc': 'as it is' } : {}) }),
    migrate: ({ uri }) => {
      qemu = connect(String(uri).replace('unix:', ''));
      qemu.on('error', () => {});
      return {};
    },
  });
  guest = await QemuSourceGuest.connect(monitor.path);
});
afterEach(async () => {
  await guest.close();
  qemu.destroy();
  await monitor.stop();
  if (outer === undefined) delete process.env['TMPDIR'];
  else process.env['TMPDIR'] = outer;
  rmSync(folder, { recursive: true, force: true });
});

function happens(event: string, data: object): void {
  monitor.send({ event, data, timestamp: { seconds: 7, microseconds: 0 } });
}

function becomes(next: string): void {
  status = next;
  happens('MIGRATION', { status });
}

function open(): Promise<AsyncIterable<SourceItem>> {
  const batches = { precopy: BATCHES, postcopy: BATCHES };
  return guest.open({ throttle: false, postcopy: true, batches, bufferBytes: bytes(2 ** 22) }, 'a-session');
}

/** All of the stream is taken up to an item of that type, and nothing of what follows. */
async function upTo(type: SourceItem['type'], items: AsyncIterable<SourceItem>): Promise<SourceItem> {
  const reading = items[Symbol.asyncIterator]();
  for (;;) {
    const { value, done } = await reading.next();
    if (done) throw new Error(`the stream has no ${type}`);
    const item: SourceItem = value;
    if (item.type === 'pages') item.release();
    if (item.type === type) return item;
  }
}

async function untilStateComplete(): Promise<void> {
  const items = await open();
  qemu.write(recordedPostcopy('10.0'));
  await upTo('state-complete', items);
}

describe('a QEMU that would run the guest again', () => {
  it('lets go when it has noticed, for which its writing is taken though nobody wants it yet', async () => {
    await untilStateComplete();
    becomes('postcopy-device');
    const told = new Promise<void>((resolve) => {
      const decoder = new ReturnPathDecoder();
      qemu.on('data', (chunk: Buffer) => {
        const loaded = decoder
          .push(chunk)
          .some((reply) => reply.type === 'pong' && reply.value === Ping.packageLoaded);
        if (loaded) resolve();
      });
    });
    const written = new Promise<void>((resolve) => {
      qemu.write(Buffer.alloc(ONE_SPELL_BYTES), () => resolve());
    });
    guest.deliverReply(new ReturnPathEncoder().pong(Ping.packageLoaded));
    const letGo = guest.letsGo();
    let sure = false;
    void letGo.then(() => {
      sure = true;
    });
    await Promise.all([told, written]);
    expect(sure).toBe(false);
    becomes('postcopy-active');
    await letGo;
  });

  it('does not when its migration fails first', async () => {
    await untilStateComplete();
    becomes('postcopy-device');
    const letGo = guest.letsGo();
    becomes('failing');
    await expect(letGo).rejects.toMatchObject({
      code: 'E_GUEST_FAILED',
      message: expect.stringContaining('as it is'),
    });
  });
});

it('a QEMU that never runs a guest again is not waited for', async () => {
  await untilStateComplete();
  becomes('postcopy-active');
  await guest.letsGo();
});

it.each([1, 2])('the first round is the first, where QEMU calls its first pass %i', async (first) => {
  const items = await open();
  for (const pass of [first, first + 1]) happens('MIGRATION_PASS', { pass });
  qemu.write(recordedPostcopy('10.0'));
  expect(await upTo('round-over', items)).toMatchObject({ round: 1 });
});

it('a migration that somebody else cancels is told as that', async () => {
  const items = await open();
  status = 'cancelled';
  qemu.end();
  await expect(upTo('end', items)).rejects.toMatchObject({
    code: 'E_GUEST_FAILED',
    message: expect.stringMatching(/another client of its monitors cancelled it/),
  });
});

describe('a QEMU whose monitor is lost', () => {
  it('is not gone while its process lives', async () => {
    await open();
    monitor.socket?.destroy();
    const lost = await guest.gone;
    expect(lost).toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      message: expect.stringMatching(/monitor .*qmp\.sock .* was lost, and QEMU lives/),
      remedy: expect.stringMatching(/where the guest runs .*before you start it anywhere/),
    });
    await expect(guest.progress()).rejects.toBe(lost);
    await expect(guest.forget({ destroy: true })).rejects.toBe(lost);
  });

  it('is taken back by another connection to its monitor, when its stream has ended', async () => {
    await open();
    const mark = JSON.stringify({ running: true, settings: { capabilities: {}, parameters: {} } });
    let state = 'postmigrate';
    const done: string[] = [];
    monitor.socket?.destroy();
    qemu.resume();
    const streamEnded = once(qemu, 'close');
    monitor.answer({
      'qom-list': () => [{ name: 'vmferry-leaving-a-session' }],
      'qom-get': () => mark,
      'query-migrate': () => ({ status: 'failed' }),
      'query-migrate-capabilities': () => [],
      'query-migrate-parameters': () => ({}),
      'query-status': () => ({ status: state, running: state === 'running' }),
      cont: () => {
        state = 'running';
        return {};
      },
      'object-del': ({ id }) => {
        done.push(String(id));
        return {};
      },
    });
    await guest.rollback();
    await streamEnded;
    expect(state).toBe('running');
    expect(done).toEqual(['vmferry-leaving-a-session']);
  });

  it('is an operator’s case where nobody answers', async () => {
    await open();
    monitor.refuse();
    await expect(guest.rollback()).rejects.toMatchObject({ code: 'E_GUEST_UNREACHABLE' });
  });
});
