import { expect, test } from 'vitest';
import { untilStuck } from '../../../src/libvirt/source/set-up.ts';

test.each([
  ['nothing of which moves', () => Promise.resolve(7)],
  ['of which nobody says anything', () => new Promise<number>(() => {})],
  ['of which nothing can be known', () => Promise.reject(new Error('no job'))],
])('a set-up %s is given up', async (_, moved) => {
  const { signal } = new AbortController();
  await expect(untilStuck(moved, signal, 50)).rejects.toMatchObject({ code: 'E_STALLED' });
});

test('one whose disks are copied is waited for, until it is over', async () => {
  const over = new AbortController();
  let copied = 0;
  const copying = async (): Promise<number> => {
    copied += 1;
    if (copied === 30) over.abort();
    return copied;
  };
  await expect(untilStuck(copying, over.signal, 200)).rejects.toMatchObject({ name: 'AbortError' });
  expect(copied).toBe(30);
});
