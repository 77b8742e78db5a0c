/** What the agents tell a source's QEMU in post-copy beside what its destination says, on recorded streams. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalSocket } from '@vmferry/native/local-socket';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IncomingStream } from '../../src/qemu/incoming-stream.ts';
import { Ping } from '../../src/qemu/stream/format.ts';
import { type Reply, ReturnPathDecoder, ReturnPathEncoder } from '../../src/qemu/stream/return-path.ts';
import { connectedToQemu, recordedPostcopy } from './support/stream/outgoing.ts';

const LOADED = { type: 'pong', value: Ping.packageLoaded };

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-return-'));
  path = join(folder, 'socket');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.each(['7.2', '10.0'])('a QEMU %s that gives up in post-copy', (version) => {
  const stream = recordedPostcopy(version);

  /** Takes items up to the first that fits, and what QEMU is told from there on, until it closes its end. */
  async function giveUpAt(type: string): Promise<Reply[]> {
    const { outgoing, qemu } = await connectedToQemu(path);
    const told: Reply[] = [];
    const decoder = new ReturnPathDecoder();
    // It has nothing more to say when it was told that all pages are there.
    qemu.on('data', (chunk: Buffer) => {
      told.push(...decoder.push(chunk));
      if (told.some((reply) => reply.type === 'shut')) qemu.end();
    });
    qemu.write(stream);
    for await (const item of outgoing.items()) {
      if (item.type === 'pages') item.release();
      if (item.type === type) break;
    }
    outgoing.giveUp();
    await outgoing.drain({ finishes: true });
    outgoing.close();
    return told;
  }

  it.each(['state-complete', 'ram-layout'])(
    'after %s is told that the state is loaded, then that all pages are there',
    async (type) => {
      const told = await giveUpAt(type);
      expect(told).toMatchObject([LOADED, { type: 'shut', value: 0 }]);
    },
  );
});

describe('of what a destination’s QEMU answers, the source’s', () => {
  /** What reaches the source's QEMU of these messages; the last has to be the answer to the state's ping. */
  async function heard(...messages: readonly Uint8Array[]): Promise<Reply[]> {
    const connected = new Promise<Socket>((resolve) => {
      const server = createServer((socket) => {
        server.close();
        resolve(socket);
      });
      server.listen(path, () => incoming.begin(LocalSocket.connect(path)));
    });
    const incoming = new IncomingStream();
    const seen: Reply[] = [];
    const decoder = new ReturnPathDecoder();
    const events = (async () => {
      for await (const event of incoming.events) {
        if (event.type === 'reply') seen.push(...decoder.push(event.bytes));
      }
    })();
    const qemu = await connected;
    for (const message of messages) qemu.write(message);
    await incoming.stateLoaded;
    qemu.destroy();
    incoming.close();
    await events;
    return seen;
  }

  const answers = new ReturnPathEncoder();
  const state = { type: 'pong', value: Ping.stateLoaded };

  it('hears that the state is loaded before anybody can call the destination ready', async () => {
    expect(await heard(answers.pong(Ping.stateLoaded))).toMatchObject([state, LOADED]);
  });

  it('hears that all has arrived, and never that something failed', async () => {
    const seen = await heard(answers.shut(0), answers.shut(1), answers.pong(Ping.stateLoaded));
    expect(seen).toMatchObject([{ type: 'shut', value: 0 }, state, LOADED]);
  });
});
