/** What is made of the destination's word that it is ready. */
import { GuestError } from '@vmferry/engine/errors';
import type { ControlMessage } from '@vmferry/wire/messages';
import { beforeEach, expect, test, vi } from 'vitest';
import { PeerNews, type PeerNewsOptions } from '../src/peer-news.ts';

const READY = { type: 'message', message: { type: 'ready' } };

const tell = vi.fn();
const fail = vi.fn();
let phase: string;

beforeEach(() => {
  tell.mockReset();
  fail.mockReset();
  phase = 'sealed';
});

/** A session whose guest is let go of in this way; `says` is the destination's next word. */
function session(letsGo: (() => Promise<void>) | undefined) {
  const control: { onMessage?: (message: ControlMessage) => void } = {};
  const switchover = {
    tell,
    fail,
    get state() {
      return { phase };
    },
  };
  new PeerNews({
    departure: {
      guest: letsGo === undefined ? {} : { letsGo },
      destination: { control, broken: new Promise(() => {}) },
    },
    account: { times: { ready: () => {} } },
    switchover,
  } as unknown as PeerNewsOptions).listen();
  return { says: (type: 'ready') => control.onMessage?.({ type }) };
}

test('nothing is committed while the source’s hypervisor could still run the guest by itself', async () => {
  let letGo: () => void = () => {};
  session(() => new Promise((resolve) => (letGo = resolve))).says('ready');
  await new Promise((resolve) => setImmediate(resolve));
  expect(tell).not.toHaveBeenCalled();
  letGo();
  await vi.waitFor(() => expect(tell).toHaveBeenCalledWith(READY));
});

test('a hypervisor that never does so needs not be asked', async () => {
  session(undefined).says('ready');
  await vi.waitFor(() => expect(tell).toHaveBeenCalledWith(READY));
});

test('one that does not let go ends the migration, unless it has ended already', async () => {
  const error = new GuestError('E_GUEST_FAILED', 'it keeps the guest', 'none');
  const { says } = session(() => Promise.reject(error));
  says('ready');
  await vi.waitFor(() => expect(fail).toHaveBeenCalledWith(error));
  phase = 'rolling-back';
  says('ready');
  await new Promise((resolve) => setImmediate(resolve));
  expect(fail).toHaveBeenCalledTimes(1);
  expect(tell).not.toHaveBeenCalled();
});
