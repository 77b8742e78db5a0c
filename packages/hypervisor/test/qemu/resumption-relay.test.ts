import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { expect, test } from 'vitest';
import { ResumptionRelay } from '../../src/qemu/resumption-relay.ts';
import { ReturnPathEncoder } from '../../src/qemu/stream/return-path.ts';
import { read, socketPair } from '../libvirt/rpc/support.ts';

const command = (number: number, payload = '') => {
  const head = Buffer.from([8, 0, number, 0, payload.length]);
  return Buffer.concat([head, Buffer.from(payload, 'latin1')]);
};
/** What either QEMU is asked, and to go on. */
const asked = Buffer.concat([command(10, '\x06pc.ram'), command(10, '\x03rom'), command(9)]);

const replies = new ReturnPathEncoder();
const [ram, rom] = [replies.pagesHere('none', 'pc.ram', 128), replies.pagesHere('all', 'rom', 64)];
const goesOn = replies.resumeAck();

function there(relay: ResumptionRelay, ...bytes: readonly Uint8Array[]): void {
  for (const each of bytes) relay.stream.write(each);
}

async function joined(relay: ResumptionRelay): Promise<{ qemu: Socket; memory: Socket }> {
  const [qemu, memory] = await socketPair();
  relay.join(memory);
  return { qemu, memory };
}

const next = (from: Duplex, bytes: Uint8Array) => read(from, bytes.length);

test('the destination’s QEMU is asked all at once, and the source’s answered from here, each at its time', async () => {
  const relay = new ResumptionRelay(['pc.ram', 'rom']);
  expect(relay.stream.read()).toEqual(asked);
  const request = replies.requestPages('pc.ram', 8192, 4096);
  // In any pieces.
  there(relay, ram.subarray(0, 9), Buffer.concat([ram.subarray(9), rom, goesOn]), request);
  await relay.goesOn;
  const { qemu } = await joined(relay);
  expect(await next(qemu, Buffer.concat([ram, rom]))).toEqual(Buffer.concat([ram, rom]));
  qemu.write(asked.subarray(0, 20));
  const pages = Buffer.from('pages');
  qemu.write(Buffer.concat([asked.subarray(20), pages]));
  expect(await next(qemu, Buffer.concat([goesOn, request]))).toEqual(Buffer.concat([goesOn, request]));
  expect(await next(relay.stream, pages)).toEqual(pages);
  const more = replies.requestPages('pc.ram', 16384, 4096);
  there(relay, more);
  expect(await next(qemu, more)).toEqual(more);
});

test('a source’s QEMU that has begun is answered to the end before it is hung up on, though the link is gone', async () => {
  const relay = new ResumptionRelay(['pc.ram']);
  there(relay, ram, goesOn);
  await relay.goesOn;
  const { qemu, memory } = await joined(relay);
  relay.stream.destroy();
  await new Promise((resolve) => setImmediate(resolve));
  expect(memory.destroyed).toBe(false);
  qemu.write(Buffer.concat([command(10, '\x06pc.ram'), command(9)]));
  expect(await next(qemu, Buffer.concat([ram, goesOn]))).toEqual(Buffer.concat([ram, goesOn]));
  qemu.resume();
  await new Promise((resolve) => qemu.once('close', resolve));
});

test('a destination whose tunnel ends before its QEMU goes on is none to begin with', async () => {
  const relay = new ResumptionRelay(['pc.ram']);
  there(relay, ram);
  await new Promise((resolve) => setImmediate(resolve));
  relay.stream.destroy();
  await expect(relay.goesOn).rejects.toThrow('the tunnel ended');
});
