import { expect, test } from 'vitest';
import { type Arrived, discard } from '../../../src/libvirt/dest/discard.ts';

const FILES = ['images', 'nvram', 'volumes'];

/** What came in was taken for moved; a domain of its UUID stands paused. */
function paused(stopped: boolean) {
  const done: string[] = [];
  let state = { state: 'paused', reason: 'migrated' };
  const handle = {
    isPersistent: async () => true,
    state: async () => state,
    destroy: async () => {
      done.push('destroy');
      state = { state: 'shut-off', reason: 'destroyed' };
    },
    undefine: async () => void done.push('undefine'),
  };
  const arrived = {
    domain: {
      name: 'web1',
      connection: { closed: false },
      handle: async () => handle,
      state: async () => state,
    },
    look: {
      definedBefore: false,
      preflight: {
        nvram: { remove: async () => void done.push('nvram') },
        volumes: { remove: async () => void done.push('volumes') },
      },
    },
    connections: { refuse: () => {}, hangUp: () => {}, calls: undefined },
    intake: {
      stream: { postcopy: false, answerWithZeros: () => {}, close: () => {} },
      images: { remove: async () => void done.push('images') },
      ...{ opening: Promise.resolve(), opened: true, finishes: true, loaded: false, stopped },
    },
  } as unknown as Arrived;
  return { arrived, done };
}

test('a domain that was taken for moved and never ran is ended, with its definition and files', async () => {
  const { arrived, done } = paused(false);
  await discard(arrived, { promised: false });
  expect(done).toEqual(['destroy', 'undefine', ...FILES]);
});

test('one that has come by another migration since the first one ended is let be', async () => {
  const { arrived, done } = paused(true);
  await discard(arrived, { promised: false });
  expect(done).toEqual(FILES);
});

test('one that the source was promised is kept', async () => {
  const { arrived, done } = paused(false);
  await expect(discard(arrived, { promised: true })).rejects.toMatchObject({ code: 'E_GUEST_FAILED' });
  expect(done).toEqual([]);
});
