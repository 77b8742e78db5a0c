import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Applicable, ApplyOrder } from '../../src/carriage/apply-order.ts';
import { PayloadError } from '../../src/carriage/payload-error.ts';

type Taken = Applicable<string, string>;

function drain(order: ApplyOrder<string>): string[] {
  const items: string[] = [];
  for (let next = order.next(); next !== undefined; next = order.next()) {
    items.push(next.item);
    order.applied(next);
  }
  return items;
}

describe('the order of application', () => {
  it('holds a barrier back until every page before it is in, on every stream', () => {
    const order = new ApplyOrder<string>({ streams: 2 });
    order.barrier({ epoch: 1, upTo: [1, 1], item: 'barrier' });
    order.page({ stream: 0, sequence: 1, epoch: 0, item: 'a' });
    expect(drain(order)).toEqual(['a']);
    order.page({ stream: 1, sequence: 1, epoch: 0, item: 'b' });
    expect(drain(order)).toEqual(['b', 'barrier']);
    expect(order.epoch).toBe(1);
  });

  it('holds a barrier back while a page before it is still being applied', () => {
    const order = new ApplyOrder<string>({ streams: 1 });
    order.page({ stream: 0, sequence: 1, epoch: 0, item: 'a' });
    order.barrier({ epoch: 1, upTo: [1], item: 'barrier' });
    const page = order.next()!;
    expect(order.next()).toBeUndefined();
    order.applied(page);
    expect(order.next()).toMatchObject({ type: 'barrier' });
  });

  it('holds pages of a later epoch back until their barrier was applied, even if they came first', () => {
    const order = new ApplyOrder<string>({ streams: 2 });
    order.page({ stream: 0, sequence: 5, epoch: 1, item: 'new' });
    expect(drain(order)).toEqual([]);
    expect(order.waiting(0)).toBe(1);
    order.barrier({ epoch: 1, upTo: [0, 0], item: 'barrier' });
    const barrier = order.next()!;
    expect(barrier.item).toBe('barrier');
    expect(order.next()).toBeUndefined();
    order.applied(barrier);
    expect(drain(order)).toEqual(['new']);
    expect(order.idle).toBe(true);
  });

  it('lets the express stream go first', () => {
    const order = new ApplyOrder<string>({ streams: 3, express: 2 });
    order.page({ stream: 0, sequence: 1, epoch: 0, item: 'bulk' });
    order.page({ stream: 2, sequence: 1, epoch: 0, item: 'fault' });
    expect(drain(order)).toEqual(['fault', 'bulk']);
  });

  it('refuses what contradicts the order', () => {
    const fresh = () => {
      const order = new ApplyOrder<string>({ streams: 2 });
      order.page({ stream: 0, sequence: 4, epoch: 1, item: '' });
      return order;
    };
    const page = (stream: number, sequence: number, epoch: number) => ({ stream, sequence, epoch, item: '' });
    expect(() => fresh().page(page(0, 4, 1))).toThrow(PayloadError);
    expect(() => fresh().page(page(0, 5, 0))).toThrow(PayloadError);
    expect(() => fresh().page(page(9, 1, 0))).toThrow(PayloadError);
    expect(() => fresh().barrier({ epoch: 2, upTo: [0, 0], item: '' })).toThrow(PayloadError);
    expect(() => fresh().barrier({ epoch: 1, upTo: [0], item: '' })).toThrow(PayloadError);
    expect(() => fresh().barrier({ epoch: 1, upTo: [4, 0], item: '' })).toThrow(PayloadError);
    const order = fresh();
    order.barrier({ epoch: 1, upTo: [3, 2], item: '' });
    expect(() => order.page(page(1, 3, 0))).toThrow(PayloadError);
    expect(() => order.page(page(1, 2, 1))).toThrow(PayloadError);
    expect(() => order.barrier({ epoch: 2, upTo: [2, 2], item: '' })).toThrow(PayloadError);
    drain(order);
    order.page(page(1, 2, 0));
    expect(order.next()).toMatchObject({ type: 'pages', epoch: 0 });
  });

  it('refuses a late page of an epoch whose barrier is on its way', () => {
    const order = new ApplyOrder<string>({ streams: 1 });
    order.barrier({ epoch: 1, upTo: [0], item: '' });
    order.next();
    expect(() => order.page({ stream: 0, sequence: 1, epoch: 0, item: '' })).toThrow(PayloadError);
  });

  it('lets the newest copy win on every interleaving of the streams', () => {
    const scenario = fc.record({
      streams: fc.integer({ min: 1, max: 4 }),
      // Each epoch sends some pages, each at most once, on any stream.
      epochs: fc.array(fc.uniqueArray(fc.nat(9), { maxLength: 8 }), { minLength: 1, maxLength: 6 }),
      seed: fc.infiniteStream(fc.nat(1_000_000)),
    });
    fc.assert(
      fc.property(scenario, ({ streams, epochs, seed }) => {
        const random = (below: number) => (seed.next().value as number) % below;
        // Each lane keeps its order; the last lane carries the barriers.
        const lanes: (() => void)[][] = Array.from({ length: streams + 1 }, () => []);
        const order = new ApplyOrder<{ page: number; version: number }[], number>({ streams });
        const sequences = new Array<number>(streams).fill(0);
        const newest = new Map<number, number>();
        for (const [epoch, pages] of epochs.entries()) {
          if (epoch > 0) {
            const upTo = [...sequences];
            lanes[streams]!.push(() => order.barrier({ epoch, upTo, item: epoch }));
          }
          for (const page of pages) {
            const stream = random(streams);
            sequences[stream]! += 1 + random(3);
            const frame = { stream, sequence: sequences[stream]!, epoch, item: [{ page, version: epoch }] };
            lanes[stream]!.push(() => order.page(frame));
            newest.set(page, epoch);
          }
        }
        const memory = new Map<number, number>();
        const barriers: number[] = [];
        const inHand: Applicable<{ page: number; version: number }[], number>[] = [];
        while (lanes.some((lane) => lane.length > 0) || inHand.length > 0 || !order.idle) {
          const ready = lanes.filter((lane) => lane.length > 0);
          if (ready.length > 0 && random(3) > 0) ready[random(ready.length)]!.shift()!();
          const next = random(2) === 0 ? order.next() : undefined;
          if (next !== undefined) {
            inHand.push(next);
            if (next.type === 'barrier') barriers.push(next.epoch);
          }
          if (inHand.length > 0 && random(2) === 0) {
            const [done] = inHand.splice(random(inHand.length), 1);
            if (done!.type === 'pages') for (const { page, version } of done!.item) memory.set(page, version);
            order.applied(done!);
          }
        }
        expect(memory).toEqual(newest);
        expect(barriers).toEqual(epochs.slice(1).map((_, index) => index + 1));
      }),
      { numRuns: 500 },
    );
  });

  it('hands out only frames that came', () => {
    const order = new ApplyOrder<string>({ streams: 1 });
    const stranger: Taken = { type: 'pages', stream: 0, sequence: 1, epoch: 0, item: '' };
    expect(() => order.applied(stranger)).toThrow(RangeError);
    expect(() => order.applied({ type: 'barrier', epoch: 1, upTo: [0], item: '' })).toThrow(RangeError);
  });
});
