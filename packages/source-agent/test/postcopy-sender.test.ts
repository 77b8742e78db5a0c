import { setImmediate as nextTurn } from 'node:timers/promises';
import type { PageBatch, PageRange, SourceGuest } from '@vmferry/engine/guest';
import { ARRIVAL_MS, STARVED_MS } from '@vmferry/engine/postcopy/bulk-budget';
import { blockIndex, bytes, PAGE_BYTES, pages, round } from '@vmferry/engine/units';
import { describe, expect, test, vi } from 'vitest';
import { PostcopySender } from '../src/postcopy-sender.ts';

function batchOf(first: number, count: number, lane: 'bulk' | 'express' = 'bulk'): PageBatch {
  return {
    type: 'pages',
    block: blockIndex(0),
    round: round(1),
    lane,
    pages: Uint32Array.from({ length: count }, (_, index) => first + index),
    kinds: new Uint8Array(count),
    content: new Uint8Array(count * PAGE_BYTES),
    headroomBytes: bytes(0),
    release: () => {},
  };
}

const faultOn = (page: number): PageRange => ({
  block: blockIndex(0),
  first: pages(page),
  count: pages(1),
});

interface Sent {
  readonly lane: 'bulk' | 'express';
  readonly pages: readonly number[];
}

/** `readable`: pages that the driver can read from the stopped guest, until they are taken. */
function rig({
  readable = [] as readonly number[],
  backlogBytes = 64 * 2 ** 20,
  answerPages = 256,
  guestRuns = true,
} = {}) {
  const left = new Set(readable);
  const asked: number[] = [];
  const sent: Sent[] = [];
  const taken: number[] = [];
  const failures: unknown[] = [];
  /** Express batches that are made ready, each until it is called. */
  const readying: ((error?: Error) => void)[] = [];
  const landing: (() => void)[] = [];
  const state = { holdExpress: false, bulkFails: undefined as Error | undefined };
  const carrier = {
    bulkOutstanding: 0,
    linkBytesPerSec: 0,
    async express(batch: PageBatch, _codec: 'none' | 'lz4', onLanded: () => void): Promise<void> {
      if (state.holdExpress) {
        await new Promise<void>((resolve, reject) =>
          readying.push((error) => (error ? reject(error) : resolve())),
        );
      }
      sent.push({ lane: 'express', pages: [...batch.pages] });
      landing.push(onLanded);
    },
    bulk(batch: PageBatch, onLanded: () => void = () => {}): Promise<void> {
      if (state.bulkFails) return Promise.reject(state.bulkFails);
      sent.push({ lane: 'bulk', pages: [...batch.pages] });
      carrier.bulkOutstanding += batch.content.length;
      landing.push(() => {
        carrier.bulkOutstanding -= batch.content.length;
        onLanded();
      });
      return Promise.resolve();
    },
  };
  const guest: Pick<SourceGuest, 'requestPages' | 'takePages'> = {
    requestPages: (ranges) => void asked.push(...ranges.map(({ first }) => first)),
    takePages({ first, count }) {
      if (readable.length === 0) return undefined;
      const taken: number[] = [];
      for (let page: number = first; page < first + count; page++) if (left.delete(page)) taken.push(page);
      if (taken.length === 0) return 'sent';
      return { ...batchOf(0, 0, 'express'), pages: Uint32Array.from(taken) };
    },
  };
  const sender = new PostcopySender({
    guest: guest as SourceGuest,
    carrier,
    backlogBytes,
    answerPages,
    onTaken: (batch) => taken.push(...batch.pages),
    onFailure: (error) => failures.push(error),
  });
  if (guestRuns) sender.guestRuns();
  const land = (): void => {
    for (const landed of landing.splice(0)) landed();
    sender.delivered();
  };
  return { sender, carrier, state, sent, asked, taken, failures, readying, land };
}

/** Whether it settles while the event loop goes round a few times. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.finally(() => {
    settled = true;
  });
  for (let turn = 0; turn < 20 && !settled; turn++) await nextTurn();
  return settled;
}

describe('a fault', () => {
  test('that waits in the backlog goes out express, with what is near it', async () => {
    const { sender, sent, asked, carrier } = rig();
    carrier.bulkOutstanding = 2 ** 30;
    void sender.add(batchOf(0, 256));
    sender.fault([faultOn(130)]);
    await nextTurn();
    expect(sent.every(({ lane }) => lane === 'express')).toBe(true);
    expect(sent[0]!.pages).toContain(130);
    expect(sent.flatMap((each) => each.pages)).toEqual(expect.arrayContaining([128, 129, 131, 191]));
    expect(asked).toEqual([]);
    sender.close();
  });

  test('on a page that the stopped guest can be read for asks nobody', async () => {
    const { sender, sent, asked, taken } = rig({ readable: [5, 6, 20, 70] });
    sender.fault([faultOn(5)]);
    await nextTurn();
    expect(sent.map((each) => each.pages)).toEqual([[5, 6], [20]]);
    expect(taken).toEqual([5, 6, 20]);
    expect(asked).toEqual([]);
    sender.close();
  });

  test('never makes an answer of more pages than a frame takes', async () => {
    const readable = Array.from({ length: 1024 }, (_, page) => page);
    const { sender, sent, taken } = rig({ readable, answerPages: 16 });
    // A walk, whose windows grow.
    for (const page of [0, 64, 192, 448]) sender.fault([faultOn(page)]);
    await nextTurn();
    expect(taken.length).toBeGreaterThan(512);
    expect(sent.flatMap((each) => each.pages)).toEqual(taken);
    expect(Math.max(...sent.map((each) => each.pages.length))).toBe(16);
    sender.close();
  });

  test('on anything else is asked of the hypervisor, whose answer goes out express', async () => {
    const { sender, sent, asked } = rig();
    sender.fault([faultOn(7)]);
    expect(asked).toEqual([7]);
    await sender.add(batchOf(7, 1, 'express'));
    expect(sent).toEqual([{ lane: 'express', pages: [7] }]);
    sender.close();
  });

  test('on a page that is on its way is not asked for again', async () => {
    const { sender, asked, land } = rig();
    await sender.add(batchOf(0, 8));
    await sender.flush();
    sender.fault([faultOn(3)]);
    expect(asked).toEqual([]);
    land();
    sender.fault([faultOn(3)]);
    expect(asked).toEqual([3]);
    sender.close();
  });
});

describe('the end', () => {
  test('waits for express batches that are made ready, and lets the event loop go on', async () => {
    const { sender, state, readying, sent } = rig();
    state.holdExpress = true;
    await sender.add(batchOf(9, 1, 'express'));
    const flushed = sender.flush();
    expect(await settles(flushed)).toBe(false);
    readying[0]!();
    expect(await settles(flushed)).toBe(true);
    expect(sent).toEqual([{ lane: 'express', pages: [9] }]);
  });

  test('waits for bulk that has no room yet', async () => {
    const { sender, carrier, sent } = rig();
    carrier.bulkOutstanding = 2 ** 30;
    await sender.add(batchOf(0, 8));
    const flushed = sender.flush();
    expect(await settles(flushed)).toBe(false);
    carrier.bulkOutstanding = 0;
    sender.delivered();
    await flushed;
    expect(sent).toEqual([{ lane: 'bulk', pages: [0, 1, 2, 3, 4, 5, 6, 7] }]);
  });

  test('comes at once when nothing waits, and when the sender is closed', async () => {
    const idle = rig();
    expect(await settles(idle.sender.flush())).toBe(true);
    const { sender, carrier } = rig();
    carrier.bulkOutstanding = 2 ** 30;
    await sender.add(batchOf(0, 8));
    const flushed = sender.flush();
    sender.close();
    expect(await settles(flushed)).toBe(true);
  });

  test('of the link is told once, and nothing is tried again', async () => {
    const { sender, state, failures } = rig();
    state.bulkFails = new Error('the link is gone');
    void sender.add(batchOf(0, 8));
    void sender.add(batchOf(8, 8));
    await sender.flush();
    expect(failures).toEqual([state.bulkFails]);
  });

  test('of an express batch is told too', async () => {
    const { sender, state, failures, readying } = rig();
    state.holdExpress = true;
    await sender.add(batchOf(9, 1, 'express'));
    const error = new Error('the link is gone');
    readying[0]!(error);
    await sender.flush();
    expect(failures).toEqual([error]);
  });
});

describe('before the guest runs on the destination', () => {
  test('faults are answered and nothing goes out in bulk', async () => {
    const { sender, sent } = rig({ readable: [5, 20], guestRuns: false });
    await sender.add(batchOf(100, 8));
    sender.fault([faultOn(5)]);
    await nextTurn();
    expect(sent.map(({ lane }) => lane)).toEqual(['express', 'express']);
    sender.close();
  });

  test('the background begins when the guest has taken its first steps', async () => {
    vi.useFakeTimers();
    try {
      const { sender, sent } = rig({ guestRuns: false });
      await sender.add(batchOf(100, 8));
      await vi.advanceTimersByTimeAsync(100);
      expect(sent).toEqual([]);
      sender.guestRuns();
      await vi.advanceTimersByTimeAsync(40);
      expect(sent).toEqual([]);
      await vi.advanceTimersByTimeAsync(30);
      expect(sent.map(({ lane }) => lane)).toEqual(['bulk']);
      sender.close();
    } finally {
      vi.useRealTimers();
    }
  });

  test('a guest that is long in coming does not hold the background up for ever', async () => {
    vi.useFakeTimers();
    try {
      const { sender, sent } = rig({ guestRuns: false });
      await sender.add(batchOf(100, 8));
      await vi.advanceTimersByTimeAsync(300);
      expect(sent.map(({ lane }) => lane)).toEqual(['bulk']);
      sender.close();
    } finally {
      vi.useRealTimers();
    }
  });
});

test('a guest that has just arrived is given way to in all its pauses', async () => {
  vi.useFakeTimers();
  try {
    const pages = Array.from({ length: 500 }, (_, page) => 10_000 + 64 * page);
    const { sender, sent, land } = rig({ readable: pages });
    await sender.add(batchOf(100, 8));
    let faults = 0;
    const faultEvery = async (pauseMs: number, ms: number): Promise<number> => {
      for (let at = 0; at < ms; at += pauseMs) {
        sender.fault([faultOn(pages[faults]!)]);
        faults += 1;
        land();
        await vi.advanceTimersByTimeAsync(pauseMs);
      }
      return sent.filter(({ lane }) => lane === 'bulk').length;
    };
    expect(await faultEvery(30, ARRIVAL_MS - 30)).toBe(0);
    expect(await faultEvery(30, 60)).toBe(1);
    sender.close();
  } finally {
    vi.useRealTimers();
  }
});

test('a reader waits while the backlog is full, unless a fault waits for what it would read', async () => {
  const { sender, carrier } = rig({ backlogBytes: 4 * 2 ** 20 });
  carrier.bulkOutstanding = 2 ** 30;
  const full = sender.add(batchOf(0, 256));
  expect(await settles(full)).toBe(false);
  sender.fault([faultOn(4000)]);
  expect(await settles(full)).toBe(true);
  sender.close();
});

test('pages of zeroes fill the backlog and the link too', async () => {
  vi.useFakeTimers();
  try {
    const { sender, sent, land } = rig();
    const zeroes = (first: number): PageBatch => ({ ...batchOf(first, 256), content: new Uint8Array(0) });
    // Nothing goes while the guest has just arrived, and a reader has to wait.
    let read = 0;
    const reading = (async () => {
      for (let first = 0; first < 256 * 100; first += 256) {
        await sender.add(zeroes(first));
        read += 1;
      }
    })();
    await vi.advanceTimersByTimeAsync(10);
    expect(sent).toEqual([]);
    expect(read).toBeLessThan(10);
    // What has not arrived is in the budget, so not all of it goes at once.
    await vi.advanceTimersByTimeAsync(300);
    expect(sent.length).toBeGreaterThan(0);
    expect(sent.length).toBeLessThan(30);
    for (let turn = 0; turn < 100; turn += 1) {
      land();
      await vi.advanceTimersByTimeAsync(5);
    }
    await reading;
    sender.close();
  } finally {
    vi.useRealTimers();
  }
});

test('while faults are answered slowly the bulk waits longer after each', async () => {
  vi.useFakeTimers();
  try {
    const { sender, sent, land } = rig({ readable: [5] });
    await vi.advanceTimersByTimeAsync(ARRIVAL_MS);
    await sender.add(batchOf(100, 8));
    await vi.advanceTimersByTimeAsync(20);
    sent.length = 0;
    sender.fault([faultOn(5)]);
    await vi.advanceTimersByTimeAsync(30);
    // The answer took 30 ms: nothing in bulk goes out before the second 30 are over.
    land();
    sender.fault([faultOn(105)]);
    void sender.add(batchOf(200, 8));
    await vi.advanceTimersByTimeAsync(50);
    expect(sent.filter(({ lane }) => lane === 'bulk')).toEqual([]);
    await vi.advanceTimersByTimeAsync(20);
    expect(sent.filter(({ lane }) => lane === 'bulk')).toHaveLength(1);
    sender.close();
  } finally {
    vi.useRealTimers();
  }
});

test('faults that never cease give the background its share after a while', async () => {
  vi.useFakeTimers();
  try {
    const { sender, sent, land } = rig({
      readable: Array.from({ length: 500 }, (_, page) => 10_000 + 64 * page),
    });
    await vi.advanceTimersByTimeAsync(ARRIVAL_MS - STARVED_MS);
    sender.fault([faultOn(10_000)]);
    for (let i = 0; i < 40; i++) void sender.add(batchOf(100 * i, 64));
    const bulkAfter = async (ms: number, from: number): Promise<number> => {
      for (let at = 0; at < ms; at += 2) {
        sender.fault([faultOn(10_000 + 64 * ((from + at) / 2))]);
        land();
        await vi.advanceTimersByTimeAsync(2);
      }
      return sent.filter(({ lane }) => lane === 'bulk').length;
    };
    expect(await bulkAfter(240, 0)).toBe(0);
    const share = await bulkAfter(160, 240);
    // 64 KiB every 16 ms, in batches of 256 KiB: one each time.
    expect(share).toBeGreaterThanOrEqual(8);
    expect(share).toBeLessThanOrEqual(12);
    sender.close();
  } finally {
    vi.useRealTimers();
  }
});

test('what was read for faults and has not arrived is held, as is what waits for the link', async () => {
  const { sender, carrier, sent, land } = rig();
  carrier.bulkOutstanding = 2 ** 30;
  void sender.add(batchOf(0, 256));
  expect(sender.heldBytes).toBe(256 * PAGE_BYTES);
  sender.fault([faultOn(130)]);
  await nextTurn();
  expect(sender.heldBytes).toBe(256 * PAGE_BYTES);
  const gone = sent.flatMap(({ pages }) => pages).length;
  land();
  expect(gone).toBeGreaterThan(0);
  expect(sender.heldBytes).toBe((256 - gone) * PAGE_BYTES);
  sender.close();
});
