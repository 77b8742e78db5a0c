import { describe, expect, it } from 'vitest';
import { Handover } from '../src/handover.ts';

interface Held<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

function held<T>(): Held<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve: (value) => resolve(value), reject: (error) => reject(error) };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function guest(most: number) {
  const handed: number[] = [];
  const failures: unknown[] = [];
  const inHand: Held<void>[] = [];
  const handover = new Handover<number>({
    most,
    hand: (item) => {
      handed.push(item);
      const taken = held<void>();
      inHand.push(taken);
      return taken.promise;
    },
    onFailure: (error) => failures.push(error),
  });
  return { handover, handed, failures, inHand };
}

describe('the handover', () => {
  it('keeps the order, whichever item is ready first', async () => {
    const { handover, handed } = guest(4);
    const items = [held<number>(), held<number>(), held<number>()];
    for (const { promise } of items) handover.push(promise);
    items[2]!.resolve(2);
    items[1]!.resolve(1);
    await settled();
    expect(handed).toEqual([]);
    items[0]!.resolve(0);
    await settled();
    expect(handed).toEqual([0, 1, 2]);
  });

  it('hands on no more than it may, and goes on when one is taken, whichever', async () => {
    const { handover, handed, inHand } = guest(2);
    for (let i = 0; i < 5; i += 1) handover.push(Promise.resolve(i));
    await settled();
    expect(handed).toEqual([0, 1]);
    inHand[1]!.resolve();
    await settled();
    expect(handed).toEqual([0, 1, 2]);
    inHand[0]!.resolve();
    inHand[2]!.resolve();
    await settled();
    expect(handed).toEqual([0, 1, 2, 3, 4]);
    handover.push(Promise.resolve(5));
    await settled();
    expect(handed).toHaveLength(5);
    inHand[3]!.resolve();
    await settled();
    expect(handed).toHaveLength(6);
  });

  it('tells of an item that never came to be, and hands on those behind it', async () => {
    const { handover, handed, failures } = guest(1);
    const broken = held<number>();
    handover.push(broken.promise);
    handover.push(Promise.resolve(1));
    broken.reject(new Error('broken'));
    await settled();
    expect(failures).toEqual([new Error('broken')]);
    expect(handed).toEqual([1]);
  });
});
