/** A guest that cannot be ended at once where its migration was given up. */
import { createLogger } from '@vmferry/agent-core/log';
import { GuestError } from '@vmferry/engine/errors';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Account } from '../src/account.ts';
import { Causes } from '../src/causes.ts';
import { Switchover, type SwitchoverOptions } from '../src/switchover.ts';

const log = createLogger({ level: 'fatal', role: 'dest' });

function switchoverOf(parts: {
  guest: object;
  journal: object;
  control: object;
  account: Account;
}): Switchover {
  const { account, control } = parts;
  account.begin('auto');
  const rest = { receiver: { close: () => {} }, whereabouts: { close: () => {}, find: async () => {} }, log };
  const causes = new Causes(control as never, account);
  return new Switchover({ ...parts, ...rest, causes } as unknown as SwitchoverOptions);
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('a guest that could not be ended is tried again until it is, and the journal and the report say so', async () => {
  const written: string[] = [];
  let [hangs, tries] = [true, 0];
  const close = vi.fn(async () => {});
  const account = new Account({ link: () => ({ streams: 1, tls: false }), log });
  const control = { link: { state: 'open', close }, send: () => {} };
  const guest = {
    discard: async () => {
      tries += 1;
      if (hangs) throw new GuestError('E_GUEST_UNREACHABLE', 'libvirt has not answered', 'restart it');
    },
    close: async () => {},
  };
  const journal = { write: async (record: string) => void written.push(record), close: async () => {} };
  const switchover = switchoverOf({ guest, journal, control, account });
  switchover.begin();
  switchover.linkLost('cut');
  const report = await account.done;
  expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_GUEST_UNREACHABLE' } });
  expect(switchover.standing).toBe('over');
  expect(close).toHaveBeenCalledOnce();

  await vi.advanceTimersByTimeAsync(60_000);
  expect([tries, account.report]).toEqual([13, report]);
  hangs = false;
  await vi.advanceTimersByTimeAsync(5000);
  expect(written).toEqual(['started', 'discarded']);
  expect(account.report).toMatchObject({
    outcome: 'failed',
    error: { code: 'E_GUEST_UNREACHABLE', remedy: 'None: the guest was ended on the destination.' },
    notes: [
      expect.stringMatching(/libvirt has not answered\. It was tried again.*nothing is left of it here/),
    ],
  });
  await vi.advanceTimersByTimeAsync(60_000);
  expect([tries, written.length]).toEqual([14, 2]);
});

test('a journal that cannot be written is told to the source with what to do', async () => {
  const sent: { type: string; notes?: readonly string[] }[] = [];
  const account = new Account({ link: () => ({ streams: 1, tls: false }), log });
  const control = { link: { state: 'open' }, send: (message: { type: string }) => void sent.push(message) };
  const write = async (): Promise<void> => {
    throw new GuestError('E_JOURNAL', 'cannot write to the journal /j: no space left', 'Free some space.');
  };
  const guest = { discard: async () => {}, close: async () => {} };
  const switchover = switchoverOf({ guest, journal: { write, close: async () => {} }, control, account });
  switchover.begin();
  expect((await account.done).error?.code).toBe('E_JOURNAL');
  expect(sent.find(({ type }) => type === 'discarded')?.notes).toEqual([
    'cannot write to the journal /j: no space left. Free some space.',
  ]);
});

test('a guest that is in doubt is left to the operator’s hands', async () => {
  const handOver = vi.fn();
  const account = new Account({ link: () => ({ streams: 1, tls: false }), log });
  const control = { link: { state: 'open' }, send: () => {} };
  const guest = { ready: async () => {}, handOver };
  const journal = { write: async () => {}, close: async () => {} };
  const switchover = switchoverOf({ guest, journal, control, account });
  switchover.begin();
  await switchover.load();
  switchover.sealed(false);
  await vi.advanceTimersByTimeAsync(1000);
  expect(handOver).not.toHaveBeenCalled();
  switchover.linkLost('cut');
  expect(await account.done).toMatchObject({ outcome: 'attention', error: { guestRunsOn: 'unknown' } });
  expect(handOver).toHaveBeenCalledOnce();
});
