import type { PageBatch } from '@vmferry/engine/guest';
import type { PackCodec } from '@vmferry/native/kernels';
import type { ControlChannel } from '@vmferry/wire/control';
import type { OutgoingFrame } from '@vmferry/wire/frame';
import type { Link } from '@vmferry/wire/link';
import { describe, expect, test, vi } from 'vitest';
import { Carrier } from '../src/carrier.ts';
import { batchOf } from './batches.ts';

/** Takes frames when it is told to, one at a time. */
class TestLink {
  readonly sent: OutgoingFrame[] = [];
  readonly stats = { bytesSent: 0, pathBytesPerSec: 0 };
  limitBytesPerSec = Number.POSITIVE_INFINITY;
  readonly window = 1000;
  bytesInFlight = 0;
  lastSent = 0;
  broken = false;
  #waiting: (() => void)[] = [];
  #open: boolean;

  constructor(open = true) {
    this.#open = open;
  }

  async send(frame: OutgoingFrame): Promise<void> {
    if (!this.#open) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.broken) {
      frame.release?.();
      throw new Error('the link is gone');
    }
    this.sendNow(frame);
  }

  sendNow(frame: OutgoingFrame): void {
    this.lastSent += 1;
    this.sent.push(frame);
  }

  open(): void {
    this.#open = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function rig(options: { links?: TestLink[]; codec?: () => PackCodec } = {}) {
  const { links = [new TestLink()], codec = () => 'none' } = options;
  const express = new TestLink();
  const barriers: unknown[] = [];
  const control = {
    link: new TestLink(),
    sendInOrder: (message: unknown) => Promise.resolve(void barriers.push(message)),
  };
  const delivered = { contentBytes: 0, zeroPages: 0 };
  const carrier = new Carrier({
    control: control as unknown as ControlChannel,
    data: links as unknown as Link[],
    express: express as unknown as Link,
    bufferBytes: 64 * 2 ** 20,
    codec,
    onDelivered: (contentBytes, zeroPages) => {
      delivered.contentBytes += contentBytes;
      delivered.zeroPages += zeroPages;
    },
  });
  return { carrier, control, links, express, barriers, delivered };
}

/** Words: LZ4 finds more in it the longer it looks. */
function wordy(batch: PageBatch): PageBatch {
  let text = '';
  for (let seed = 1; text.length < batch.content.length; seed = (seed * 75 + 74) % 65_537) {
    text += `${seed % 7} pages of ${seed % 97}, `;
  }
  batch.content.set(Buffer.from(text.slice(0, batch.content.length)));
  return batch;
}

describe('the carrier', () => {
  test('packs thoroughly for a link that is slow, however little is on its way', async () => {
    const { carrier, links } = rig({ codec: () => 'lz4' });
    const [link] = links as [TestLink];
    for (const pathBytesPerSec of [120e6, 12e6]) {
      link.stats.pathBytesPerSec = pathBytesPerSec;
      await carrier.bulk(wordy(batchOf(64, 0)));
      await carrier.stateComplete(false);
    }
    const [hasty, thorough] = link.sent as [OutgoingFrame, OutgoingFrame];
    expect(hasty.buffer.length).toBeGreaterThan(thorough.buffer.length);
    for (const { release } of link.sent) release?.();
  });

  test('packs thoroughly for a link that may carry little, whatever it could', async () => {
    const { carrier, links } = rig({ codec: () => 'lz4' });
    const [link] = links as [TestLink];
    for (const limit of [Number.POSITIVE_INFINITY, 12e6]) {
      link.limitBytesPerSec = limit;
      await carrier.bulk(wordy(batchOf(64, 0)));
      await carrier.stateComplete(false);
    }
    const [hasty, thorough] = link.sent as [OutgoingFrame, OutgoingFrame];
    expect(hasty.buffer.length).toBeGreaterThan(thorough.buffer.length);
    link.stats.pathBytesPerSec = 120e6;
    expect(carrier.linkBytesPerSec).toBe(12e6);
    for (const { release } of link.sent) release?.();
  });

  test('packs in haste while the link has room, and thoroughly when it has none', async () => {
    const { carrier, links } = rig({ codec: () => 'lz4' });
    const [link] = links as [TestLink];
    for (const bytesInFlight of [0, link.window]) {
      link.bytesInFlight = bytesInFlight;
      await carrier.bulk(wordy(batchOf(64, 0)));
      await carrier.stateComplete(false);
    }
    const [hasty, thorough] = link.sent as [OutgoingFrame, OutgoingFrame];
    expect(hasty.buffer.length).toBeGreaterThan(thorough.buffer.length);
    expect(hasty.buffer.length).toBeLessThan(64 * 4096);
    for (const { release } of link.sent) release?.();
  });

  test('sends bulk frames in their order, however long each takes to be built, and then the barrier', async () => {
    const codecs: PackCodec[] = ['lz4hc', 'none', 'lz4', 'lz4hc'];
    let asked = 0;
    const { carrier, links, barriers, delivered } = rig({ codec: () => codecs[asked++ % codecs.length]! });
    const sizes = [512, 0, 20, 1, 512, 300, 2, 4, 0, 512];
    const batches = sizes.map((raw, index) => batchOf(raw, 5, { first: index * 10_000 }));
    for (const batch of batches) await carrier.bulk(batch);
    await carrier.stateComplete(false);
    const [link] = links as [TestLink];
    expect(link.sent.map(({ count }) => count)).toEqual(sizes.map((raw) => raw + 5));
    expect(barriers[0]).toMatchObject({ type: 'barrier', epoch: 1, upTo: [sizes.length, 0] });
    const content = sizes.reduce((sum, raw) => sum + raw * 4096, 0);
    expect(carrier.bulkOutstanding).toBe(content);
    for (const { release } of link.sent) release?.();
    expect(carrier.bulkOutstanding).toBe(0);
    expect(delivered).toEqual({ contentBytes: content, zeroPages: 5 * sizes.length });
    expect(batches.map((batch) => batch.released())).toEqual(sizes.map(() => 1));
  });

  test('takes a few batches ahead of the link, and more when frames go', async () => {
    const link = new TestLink(false);
    const { carrier } = rig({ links: [link] });
    let taken = 0;
    const feeding = (async () => {
      for (let index = 0; index < 8; index += 1) {
        await carrier.bulk(batchOf(10, 0, { first: index * 1000 }));
        taken += 1;
      }
    })();
    await vi.waitFor(() => expect(carrier.congested).toBe(true));
    expect(taken).toBeLessThan(8);
    link.open();
    await feeding;
    await carrier.end();
    expect(link.sent).toHaveLength(8);
  });

  test('tells of a broken link at the next call, and gives every batch back once', async () => {
    const link = new TestLink(false);
    const { carrier } = rig({ links: [link] });
    const batches = Array.from({ length: 3 }, (_, index) => batchOf(10, 0, { first: index * 1000 }));
    let landed = 0;
    for (const batch of batches) await carrier.bulk(batch, () => (landed += 1));
    link.broken = true;
    link.open();
    await expect(carrier.end()).rejects.toThrow('the link is gone');
    const late = batchOf(10, 0);
    await expect(carrier.bulk(late, () => (landed += 1))).rejects.toThrow('the link is gone');
    expect([...batches, late].map((batch) => batch.released())).toEqual([1, 1, 1, 1]);
    expect(landed).toBe(4);
  });

  test('lets go of everybody who waits when it is closed', async () => {
    const { carrier, links } = rig({ links: [new TestLink(false)] });
    // Frames that the destination never acknowledges take all the room there is.
    const batches = Array.from({ length: 20 }, (_, index) => batchOf(512, 0, { first: index * 2000 }));
    links[0]!.open();
    const feeding = (async () => {
      for (const batch of batches) await carrier.bulk(batch);
    })();
    const { sent } = links[0]!;
    // 16 MiB, as each frame holds 2 MiB and a little.
    await vi.waitFor(() => expect([sent.length, carrier.congested]).toEqual([7, true]));
    carrier.close(new Error('given up'));
    await expect(feeding).rejects.toThrow('given up');
    await expect(carrier.end()).rejects.toThrow('given up');
    expect(sent).toHaveLength(7);
    for (const { release } of sent) release?.();
    const taken = batches.filter((batch) => batch.released() > 0);
    expect(taken.map((batch) => batch.released())).toEqual(taken.map(() => 1));
    // The one that waited for a permit as well.
    expect(taken).toHaveLength(7 + 3 + 1);
  });

  test('counts what is opaque as content that is delivered once pages are in it', async () => {
    const { carrier, control, delivered } = rig();
    await carrier.opaque(Buffer.alloc(100));
    carrier.carryVerbatim();
    await carrier.opaque(Buffer.alloc(3000));
    expect([carrier.bulkOutstanding, delivered.contentBytes]).toEqual([3000, 0]);
    let landed = false;
    const landing = carrier.landed().then(() => {
      landed = true;
    });
    expect(landed).toBe(false);
    for (const { release } of control.link.sent) release?.();
    await landing;
    expect([carrier.bulkOutstanding, delivered]).toEqual([0, { contentBytes: 3000, zeroPages: 0 }]);
  });

  test('sends an express batch at once', async () => {
    const { carrier, express, links } = rig({ links: [new TestLink(false)] });
    const batch = batchOf(1, 0);
    await carrier.express(batch, 'none', () => {});
    expect([express.sent.length, links[0]!.sent.length, batch.released()]).toEqual([1, 0, 1]);
  });
});
