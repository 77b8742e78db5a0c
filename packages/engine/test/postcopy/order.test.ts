import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PageRange } from '../../src/guest.ts';
import { PostcopyOrder, type PostcopyOrderOptions } from '../../src/postcopy/order.ts';
import { blockIndex, bytes, millis, PAGE_BYTES, pages } from '../../src/units.ts';

const layout = (...blocks: (readonly [pages: number, hostPages?: number])[]) => ({
  blocks: blocks.map(([count, hostPages = 1], index) => ({
    name: `b${index}`,
    bytes: bytes(count * PAGE_BYTES),
    hostPageBytes: bytes(hostPages * PAGE_BYTES),
  })),
});

const at = (block: number, first: number, count = 1): PageRange => ({
  block: blockIndex(block),
  first: pages(first),
  count: pages(count),
});

const list = (ranges: readonly PageRange[]) =>
  ranges.flatMap(({ block, first, count }) =>
    Array.from({ length: count }, (_, i) => `${block}:${first + i}`),
  );

const numbers = (range: PageRange) => Uint32Array.from({ length: range.count }, (_, i) => range.first + i);

function orderOf(shape: ReturnType<typeof layout>, options?: PostcopyOrderOptions) {
  const order = new PostcopyOrder(shape, options);
  return {
    order,
    arrive: (range: PageRange) => order.arrived(range.block, numbers(range)),
  };
}

describe('the post-copy order', () => {
  it('hands out every page once, and nothing that was sent', () => {
    const { order } = orderOf(layout([100], [40]));
    order.sent(
      blockIndex(0),
      Uint32Array.from({ length: 50 }, (_, i) => i * 2),
    );
    order.discarded(blockIndex(0), 10, 5);
    const all = list(order.next(1000));
    expect(new Set(all).size).toBe(all.length);
    expect(all.length).toBe(50 + 40 + 3);
    expect(order.next(1000)).toEqual([]);
    expect(order.remainingPages).toBe(93);
    expect(order.done).toBe(false);
  });

  it('bubbles out around the latest fault, forward before backward', () => {
    const { order } = orderOf(layout([10_000]));
    expect(order.fault(at(0, 5000), millis(0))).toEqual(at(0, 5000));
    expect(order.next(16)).toEqual([at(0, 5001, 16)]);
    expect(order.next(8)).toEqual([at(0, 4992, 8)]);
    expect(order.next(24)).toEqual([at(0, 5017, 16), at(0, 4984, 8)]);
  });

  it('turns to a new fault at once and does not forget the one before', () => {
    const { order } = orderOf(layout([100_000]));
    order.fault(at(0, 5000), millis(0));
    order.fault(at(0, 50_000), millis(1));
    const next = order.next(48);
    expect(next[0]).toEqual(at(0, 50_001, 16));
    expect(list(next)).toContain('0:5001');
  });

  it('follows in sequence over the other blocks when nothing near is left', () => {
    const { order } = orderOf(layout([64], [64]));
    order.fault(at(1, 10), millis(0));
    const all = order.next(127);
    expect(list(all).slice(0, 3)).toEqual(['1:11', '1:12', '1:13']);
    expect(list(all).slice(-2)).toEqual(['0:62', '0:63']);
    expect(new Set(list(all)).size).toBe(127);
  });

  it('sends along more neighbours while faults are close, and fewer when they are not', () => {
    const { order } = orderOf(layout([1_000_000]));
    const width = (first: number, now: number) => {
      order.fault(at(0, first), millis(now));
      return list(order.prefetch(at(0, first))).length;
    };
    expect(width(1000, 0)).toBe(8);
    expect(width(1009, 1)).toBe(16);
    expect(width(1026, 2)).toBe(32);
    expect(width(1059, 3)).toBe(64);
    expect(width(1124, 4)).toBe(64);
    expect(width(500_000, 5)).toBe(32);
    expect(width(900_000, 6)).toBe(16);
    expect(width(200_000, 7)).toBe(8);
    expect(width(300_000, 8)).toBe(8);
  });

  it('looks for neighbours on the side to which faults move', () => {
    const { order } = orderOf(layout([10_000]));
    order.fault(at(0, 5000), millis(0));
    order.prefetch(at(0, 5000));
    order.fault(at(0, 4999), millis(1));
    expect(order.prefetch(at(0, 4999))).toEqual([at(0, 4983, 16)]);
  });

  it('asks again for a faulted page that waits in the background, without counting it twice', () => {
    const { order, arrive } = orderOf(layout([8]));
    order.next(8);
    expect(order.fault(at(0, 3), millis(0))).toEqual(at(0, 3));
    expect(order.outstandingPages).toBe(8);
    arrive(at(0, 0, 8));
    expect(order.done).toBe(true);
  });

  it('keeps huge pages whole, in faults, neighbours and background', () => {
    const { order, arrive } = orderOf(layout([4096, 512]));
    expect(order.fault(at(0, 700), millis(0))).toEqual(at(0, 512, 512));
    expect(order.prefetch(at(0, 700))).toEqual([]);
    const next = order.next(3);
    expect(next).toEqual([at(0, 1024, 512)]);
    expect(order.next(1)).toEqual([at(0, 0, 512)]);
    arrive(at(0, 512, 512));
    expect(order.remainingPages).toBe(4096 - 512);
  });

  it('writes off what the hypervisor passed over, once it answers a later request', () => {
    const { order, arrive } = orderOf(layout([1000], [1000]));
    order.next(10);
    order.fault(at(1, 500), millis(0));
    const later = order.next(10)[0]!;
    expect(order.outstandingPages).toBe(21);
    arrive(at(0, 2, 3));
    expect(order.outstandingPages).toBe(18);
    arrive(at(later.block, later.first));
    expect(order.outstandingPages).toBe(9);
  });

  it('lets an answer on the express lane overtake the background', () => {
    const { order, arrive } = orderOf(layout([1000]));
    order.next(10);
    order.fault(at(0, 500), millis(0));
    arrive(at(0, 500));
    expect(order.outstandingBackgroundPages).toBe(10);
  });

  it('stops waiting for an answer that never comes when it is told to', () => {
    const { order } = orderOf(layout([10]));
    order.next(10);
    expect(order.done).toBe(false);
    order.forgetOutstanding();
    expect(order.done).toBe(true);
  });

  it('leaves the link to the faults while they come, and takes it when they stop', () => {
    const { order } = orderOf(layout([10]), { minBackgroundPages: 4, maxBackgroundPages: 1000 });
    for (let now = 0; now < 1000; now += 5) {
      order.fault(at(0, 0), millis(now));
      expect(order.budget(millis(now + 5))).toBe(4);
    }
    expect(order.budget(millis(1015))).toBe(4);
    expect(order.budget(millis(1080))).toBeGreaterThan(4);
    expect(order.budget(millis(1080))).toBeLessThan(100);
    expect(order.budget(millis(1400))).toBe(1000);
  });

  it('grows from its least share when no fault ever comes', () => {
    const { order } = orderOf(layout([10]));
    expect(order.budget(millis(5000))).toBe(8);
    expect(order.budget(millis(5300))).toBe(2048);
  });

  it('refuses ranges outside the guest', () => {
    const { order } = orderOf(layout([10]));
    expect(() => order.fault(at(0, 10), millis(0))).toThrow(RangeError);
    expect(() => order.fault(at(1, 0), millis(0))).toThrow(RangeError);
    expect(() => order.fault(at(0, 9, 2), millis(0))).toThrow(RangeError);
  });

  it('ends with every page asked for exactly once, whatever faults, arrives and is passed over', () => {
    const block = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.constantFrom(1, 1, 4, 16));
    const scenario = fc.record({
      blocks: fc.array(block, { minLength: 1, maxLength: 3 }),
      sent: fc.array(fc.tuple(fc.nat(2), fc.nat(700)), { maxLength: 60 }),
      steps: fc.array(fc.tuple(fc.nat(3), fc.nat(2), fc.nat(700)), { maxLength: 60 }),
    });
    fc.assert(
      fc.property(scenario, ({ blocks, sent, steps }) => {
        const shape = layout(...blocks.map(([units, host]) => [units * host, host] as const));
        const { order, arrive } = orderOf(shape);
        const expected = new Set<string>();
        for (const [index, [units, host]] of blocks.entries()) {
          for (let page = 0; page < units * host; page += 1) expected.add(`${index}:${page}`);
        }
        for (const [index, where] of sent) {
          const [units, host] = blocks[index % blocks.length]!;
          const unit = where % units;
          const range = at(index % blocks.length, unit * host, host);
          order.sent(range.block, numbers(range));
          for (const key of list([range])) expected.delete(key);
        }
        expect(order.remainingPages).toBe(expected.size);
        const asked = new Set<string>();
        const background = new Set<string>();
        const waiting: PageRange[] = [];
        let now = 0;
        const takeBackground = (ranges: readonly PageRange[]) => {
          for (const range of ranges) {
            const host = blocks[range.block]![1];
            expect(range.first % host).toBe(0);
            expect(range.count % host).toBe(0);
            waiting.push(range);
            for (const key of list([range])) {
              expect(asked.has(key) || background.has(key)).toBe(false);
              background.add(key);
              asked.add(key);
            }
          }
        };
        for (const [what, index, where] of steps) {
          now += 3;
          const blockAt = index % blocks.length;
          const [units, host] = blocks[blockAt]!;
          if (what === 0) takeBackground(order.next(1 + (where % 20)));
          else if (what === 1) {
            const range = order.fault(at(blockAt, where % (units * host)), millis(now));
            expect(range.first % host).toBe(0);
            for (const key of list([range])) if (expected.has(key)) asked.add(key);
            waiting.push(range);
            takeBackground(order.prefetch(range));
          } else if (what === 2) {
            const range = waiting.shift();
            if (range) arrive(range);
          } else waiting.shift();
        }
        for (let turn = 0; order.missingPages > 0; turn += 1) {
          expect(turn).toBeLessThan(10_000);
          takeBackground(order.next(7));
        }
        expect(asked).toEqual(expected);
        for (const range of waiting) arrive(range);
        order.forgetOutstanding();
        expect(order.done).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('walks through 64 GiB in little time and memory', () => {
    const { order } = orderOf(layout([2 ** 24]));
    order.sent(
      blockIndex(0),
      Uint32Array.from({ length: 2 ** 22 }, (_, i) => i * 2),
    );
    let handed = 0;
    for (let now = 0; order.missingPages > 0; now += 1) {
      if (now % 50 === 0) order.fault(at(0, (now * 7919) % 2 ** 24), millis(now));
      for (const range of order.next(4096)) {
        handed += range.count;
        order.arrived(range.block, numbers(range));
      }
    }
    expect(handed).toBeGreaterThan(2 ** 24 - 2 ** 22 - 2 ** 16);
  });
});
