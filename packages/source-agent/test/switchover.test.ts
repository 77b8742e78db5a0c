/** A libvirt that takes its guest back while the commit is being written. */
import { createLogger } from '@vmferry/agent-core/log';
import { byHand } from '@vmferry/engine/by-hand';
import { GuestError } from '@vmferry/engine/errors';
import type { SourceGuest } from '@vmferry/engine/guest';
import { expect, test } from 'vitest';
import { Account } from '../src/account.ts';
import { Causes } from '../src/causes.ts';
import { Switchover, type SwitchoverOptions } from '../src/switchover.ts';

const hungUp = new GuestError('E_GUEST_FAILED', 'libvirt gave the migration up', "see libvirt's log");

test('a hang-up between READY and the commit takes the guest back, and COMMIT is never said', async () => {
  const said: string[] = [];
  const written: string[] = [];
  let rolledBack = 0;
  let writing: () => void = () => {};
  const atCommit = new Promise<void>((resolve) => {
    writing = resolve;
  });
  let onDisk: () => void = () => {};
  const guest: Partial<SourceGuest> = {
    committed: () => void said.push('answer to libvirt'),
    rollback: async () => {
      rolledBack += 1;
    },
  };
  const departure = {
    guest,
    description: { running: true },
    destination: {
      control: { link: { state: 'open' }, send: ({ type }: { type: string }) => void said.push(type) },
    },
    journal: {
      write: async (record: string) => {
        written.push(record);
        if (record !== 'committed') return;
        writing();
        await new Promise<void>((resolve) => {
          onDisk = resolve;
        });
      },
    },
  } as unknown as SwitchoverOptions['departure'];
  const request = { guest: 'libvirt:web1', strategy: 'precopy' } as const;
  const account = new Account({
    request,
    clock: () => undefined,
    wireBytes: () => 0,
    link: () => ({ streams: 1, tls: false }),
  });
  const causes = new Causes();
  const switchover = new Switchover({
    departure,
    request: { announceIps: [], destroySource: false },
    hands: { here: byHand(request.guest), there: byHand('libvirt:web1-there') },
    account,
    causes,
    log: createLogger({ level: 'fatal', role: 'source' }),
    stopTraffic: () => {},
  });
  switchover.begin();
  switchover.tell({ type: 'state-complete' });
  await expect.poll(() => said).toEqual(['sealed']);
  switchover.tell({ type: 'stream-end' });
  switchover.tell({ type: 'message', message: { type: 'ready' } });
  await atCommit;
  switchover.guestGone(hungUp);
  onDisk();
  const report = await switchover.outcome;
  expect(causes.explain(report, report.code!, account.phase)).toMatchObject({
    code: 'E_GUEST_FAILED',
    side: 'source',
    guestRunsOn: 'source',
    message: 'libvirt gave the migration up',
  });
  expect({ said, written, rolledBack }).toEqual({
    said: ['sealed', 'discard', 'discard'],
    written: ['started', 'sealed', 'committed', 'rolling-back', 'rolled-back'],
    rolledBack: 1,
  });
  switchover.stop();
});
