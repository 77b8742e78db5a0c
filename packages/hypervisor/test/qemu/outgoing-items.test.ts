/** What a source's QEMU writes, as items: on recorded streams. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SourceItem } from '@vmferry/engine/guest';
import { bytes, bytesPerSec, millis } from '@vmferry/engine/units';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StreamDecoder } from '../../src/qemu/stream/decoder.ts';
import { connectedToQemu, recordedPostcopy } from './support/stream/outgoing.ts';

/** Of the least that a command takes. */
const COMMAND_HEADER_BYTES = 5;

let folder: string;
let sockets = 0;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-items-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function itemsOf(stream: Buffer): Promise<SourceItem[]> {
  const { outgoing, qemu } = await connectedToQemu(join(folder, `socket-${sockets++}`));
  qemu.end(stream);
  const items: SourceItem[] = [];
  for await (const item of outgoing.items()) {
    if (item.type === 'pages') item.release();
    // The memory of an item is the reader's, and soon another's.
    items.push(item.type === 'opaque' ? { ...item, bytes: Uint8Array.from(item.bytes) } : item);
  }
  outgoing.close();
  return items;
}

/** As of a guest that wrote much: the stream's first discard so many times. */
function withDiscards(stream: Buffer, count: number): Buffer {
  let isDiscard = false;
  for (const item of new StreamDecoder({ batchPages: 32 }).decode(stream)) {
    if (item.type === 'opaque' && isDiscard) {
      const discard = item.bytes;
      const first = stream.indexOf(discard);
      const many = Array.from({ length: count }, () => discard);
      return Buffer.concat([stream.subarray(0, first), ...many, stream.subarray(first)]);
    }
    // A command's notice comes before its bytes.
    isDiscard = item.type === 'command' && item.name === 'discard';
  }
  throw new Error('there is no discard');
}

describe.each(['7.2', '10.0'])('the stream of a QEMU %s that begins a post-copy', (version) => {
  const opaqueBefore = (items: readonly SourceItem[], type: SourceItem['type']): Uint8Array[] => {
    const upTo = items.slice(
      0,
      items.findIndex((item) => item.type === type),
    );
    return upTo.flatMap((item) => (item.type === 'opaque' ? [item.bytes] : []));
  };

  it('has its hundreds of small commands in a few items, for each is a barrier while the guest stands still', async () => {
    const stream = withDiscards(recordedPostcopy(version), 400);
    const items = opaqueBefore(await itemsOf(stream), 'state-complete');
    const plain = opaqueBefore(await itemsOf(recordedPostcopy(version)), 'state-complete');
    expect(items.length).toBeLessThan(plain.length + 20);
    const sum = (of: readonly Uint8Array[]): number => of.reduce((all, each) => all + each.length, 0);
    expect(sum(items) - sum(plain)).toBeGreaterThan(400 * COMMAND_HEADER_BYTES);
  });

  it('has every byte that is not of pages, in its order', async () => {
    const stream = recordedPostcopy(version);
    const wanted: Uint8Array[] = [];
    for (const item of new StreamDecoder({ batchPages: 32 }).decode(stream))
      if (item.type === 'opaque') wanted.push(item.bytes);
    const items = await itemsOf(stream);
    const got = items.flatMap((item) => (item.type === 'opaque' ? [item.bytes] : []));
    expect(Buffer.concat(got).equals(Buffer.concat(wanted))).toBe(true);
  });
});

describe('the end of a round', () => {
  it('is in its place, though QEMU says only after the last pages what the round has left', async () => {
    let answer: () => void = () => {};
    const { outgoing, qemu } = await connectedToQemu(
      join(folder, 'round'),
      () =>
        new Promise((resolve) => {
          answer = () => resolve({ remainingBytes: bytes(0), dirtyBytesPerSec: bytesPerSec(9) });
        }),
    );
    await outgoing.passBegan(1);
    outgoing.guestStopped({ type: 'stopped', atMs: millis(7) });
    void outgoing.passBegan(2);
    qemu.end(recordedPostcopy('7.2'));
    const types: string[] = [];
    for await (const item of outgoing.items()) {
      if (item.type === 'pages') item.release();
      if (item.type === 'state-complete') answer();
      types.push(item.type);
    }
    outgoing.close();
    expect(types.slice(0, 2)).toEqual(['stopped', 'round-over']);
    expect(types.indexOf('round-end')).toBeGreaterThan(types.indexOf('state-complete'));
  });
});
