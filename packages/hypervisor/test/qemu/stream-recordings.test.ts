/** Streams of QEMU 7.2 and 10.0, recorded by stream-live.test.ts from its guest of 16 MiB. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { DecodedItem } from '../../src/qemu/stream/decoded.ts';
import { StreamDecoder } from '../../src/qemu/stream/decoder.ts';
import { StreamEncoder } from '../../src/qemu/stream/encoder.ts';
import { ReturnPathDecoder } from '../../src/qemu/stream/return-path.ts';
import { guestFault } from './support/stream/guest-rom.ts';
import { pageContents } from './support/stream/told.ts';

const TOP = 12 * 2 ** 20;

const VERSIONS = ['7.2', '10.0'] as const;
type Version = (typeof VERSIONS)[number];

function recording(version: Version, name: string): Buffer {
  return gunzipSync(readFileSync(new URL(`recordings/qemu-${version}-${name}.gz`, import.meta.url)));
}

interface Summary {
  readonly memory: Map<string, Buffer>;
  readonly opaque: string;
  /** Kinds of items in order, repeats left out. */
  readonly order: readonly string[];
  readonly end: string;
}

function* evenly(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function decode(bytes: Buffer, chunkBytes: number, each: (item: DecodedItem) => void = () => {}): Summary {
  const decoder = new StreamDecoder({ batchPages: 32 });
  const memory = new Map<string, Buffer>();
  const opaque = createHash('sha256');
  const order: string[] = [];
  for (const chunk of evenly(bytes, chunkBytes)) {
    for (const item of decoder.decode(chunk)) {
      each(item);
      const kind = item.type === 'command' ? item.name : item.type;
      if (order.at(-1) !== kind) order.push(kind);
      if (item.type === 'opaque') opaque.update(item.bytes);
      else if (item.type === 'ram-layout') {
        for (const block of item.layout.blocks) memory.set(block.name, Buffer.alloc(block.bytes));
      } else if (item.type === 'pages') {
        const block = memory.get(decoder.layout!.blocks[item.block]!.name)!;
        for (const [i, content] of pageContents(item).entries()) block.set(content, item.pages[i]! * 4096);
      }
    }
  }
  return { memory, opaque: opaque.digest('hex'), order, end: decoder.finish().state };
}

function expectSame(a: Summary, b: Summary): void {
  expect(a.opaque).toBe(b.opaque);
  expect(a.order).toEqual(b.order);
  expect(a.end).toBe(b.end);
  expect([...a.memory.keys()]).toEqual([...b.memory.keys()]);
  for (const [name, block] of a.memory) expect(block.equals(b.memory.get(name)!), name).toBe(true);
}

function encodeAgain(bytes: Buffer): Buffer {
  const encoder = new StreamEncoder();
  const out: Uint8Array[] = [];
  decode(bytes, 65_536, (item) => {
    if (item.type === 'state-complete') encoder.wholeHostPages = true;
    if (item.type !== 'command' && item.type !== 'ram-end') out.push(encoder.encode(item));
  });
  return Buffer.concat(out);
}

describe.each(VERSIONS)('a recorded pre-copy stream of QEMU %s', (version) => {
  const bytes = recording(version, 'precopy.stream');

  it('is understood up to its device state and holds the guest’s memory', () => {
    const { memory, order, end } = decode(bytes, 65_536);
    // Machine types of QEMU 10 and newer say when the switchover begins; what is left of RAM comes after it.
    const switchover = version === '7.2' ? [] : ['switchover-start', 'opaque', 'pages'];
    expect(order).toEqual(['opaque', 'ram-layout', 'pages', ...switchover, 'ram-end', 'opaque']);
    expect(end).toBe('opaque');
    expect(memory.get('pc.ram')).toHaveLength(16 * 2 ** 20);
    expect(guestFault(memory.get('pc.ram')!, TOP)).toBeUndefined();
  });

  it('says the same in chunks of any size, and when it is written again', () => {
    const whole = decode(bytes, bytes.length);
    for (const size of [997, 4096, 4104, 65_536]) expectSame(decode(bytes, size), whole);
    expectSame(decode(encodeAgain(bytes), 50_000), whole);
  });
});

describe.each(VERSIONS)('a recorded post-copy stream of QEMU %s', (version) => {
  const bytes = recording(version, 'postcopy.stream');

  it('is understood to its end', () => {
    const { order, end } = decode(bytes, 65_536);
    expect(end).toBe('whole');
    const setup = order.slice(0, order.indexOf('ram-layout'));
    expect(setup.filter((kind) => kind !== 'opaque')).toEqual(['open-return-path', 'ping', 'advise']);
    const switchover = order.indexOf('discard');
    const announced = version === '7.2' ? [] : ['switchover-start', 'opaque'];
    expect(order.slice(setup.length, switchover)).toEqual(['ram-layout', 'pages', ...announced]);
    const after = order.slice(switchover).filter((kind) => kind !== 'opaque');
    expect(after.filter((kind) => kind !== 'discard')).toEqual([
      'ping',
      'packaged',
      'state-complete',
      'ping',
      'pages',
      'ram-end',
    ]);
  });

  it('says the same in chunks of any size, and when it is written again', () => {
    const whole = decode(bytes, bytes.length);
    for (const size of [997, 4096, 65_536]) expectSame(decode(bytes, size), whole);
    expectSame(decode(encodeAgain(bytes), 50_000), whole);
  });

  it('has a return path that is understood to its end', () => {
    const decoder = new ReturnPathDecoder();
    const replies = [...evenly(recording(version, 'postcopy.replies'), 7)].flatMap((chunk) =>
      decoder.push(chunk),
    );
    expect(decoder.finish()).toBe(true);
    const kinds = new Set(replies.map(({ type }) => type));
    expect(kinds).toEqual(new Set(['pong', 'request-pages', 'shut']));
    expect(replies.at(-1)).toMatchObject({ type: 'shut', value: 0 });
    // The guest runs in the ROM and writes to the RAM.
    const asked = replies.flatMap((reply) => (reply.type === 'request-pages' ? reply.blockName : []));
    expect(asked).toContain('pc.ram');
    expect(['pc.ram', 'pc.bios']).toEqual(expect.arrayContaining(asked));
  });
});
