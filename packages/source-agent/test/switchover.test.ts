/** A libvirt that takes its guest back while the commit is being written. */
import { createLogger } from '@vmferry/agent-core/log';
import { byHand } from '@vmferry/engine/by-hand';
import { GuestError } from '@vmferry/engine/errors';
import type { SourceGuest } from '@vmferry/engine/guest';
import { WireError } from '@vmferry/wire/errors';
import { expect, test } from 'vitest';
import { Account } from '../src/account.ts';
import { Causes } from '../src/causes.ts';
import { Switchover, type SwitchoverOptions } from '../src/switchover.ts';

const hungUp = new GuestError('E_GUEST_FAILED', 'libvirt gave the migration up', "see libvirt's log");

const request = { guest: 'libvirt:web1', strategy: 'precopy' } as const;

function accountOf(): Account {
  const link = () => ({ streams: 1, tls: false });
  return new Account({ request, clock: () => undefined, wireBytes: () => 0, link });
}

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
  const account = accountOf();
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

test('a link that falls silent is a lost link, also where it is being sent to', async () => {
  const account = accountOf();
  const causes = new Causes();
  const switchover = new Switchover({
    departure: {
      guest: { rollback: async () => {} },
      destination: { control: { link: { state: 'closed' } } },
      journal: { write: async () => {} },
    },
    ...{ account, causes, stopTraffic: () => {}, log: createLogger({ level: 'fatal', role: 'source' }) },
  } as unknown as SwitchoverOptions);
  account.enter('precopy');
  switchover.begin();
  switchover.fail(new WireError('E_TIMEOUT', 'nothing was heard from the peer of data 0 for 15000 ms'));
  const report = await switchover.outcome;
  expect(causes.explain(report, report.code!, account.phase)).toMatchObject({
    code: 'E_LINK_LOST',
    message: 'The link to the destination was lost: nothing was heard from the peer of data 0 for 15000 ms',
    remedy: expect.stringMatching(/network between the hosts carries traffic; The guest runs on the source/),
  });
  switchover.stop();
});
