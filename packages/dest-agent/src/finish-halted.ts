/** A post-copy that came to a halt: the hypervisors finish it among themselves, over what is carried for them. */
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import type { ControlChannel } from '@vmferry/wire/control';
import type { Account } from './account.ts';
import type { Admitted } from './admission.ts';
import { FaultTimes } from './fault-times.ts';
import type { Streams } from './streams.ts';

/** From a finished post-copy to the end of the hypervisors' own connection. */
const CARRIED_MS = 10_000;

export interface HaltedOptions {
  readonly admitted: Admitted;
  readonly session: string;
  readonly control: ControlChannel;
  readonly streams: Streams;
  readonly account: Account;
}

/** Resolves when all is over, which the source and the account are told. Rejects as the guest's driver does. */
export async function finishHalted(options: HaltedOptions): Promise<void> {
  const { account, admitted, control, session, streams } = options;
  const { guest, plan } = admitted;
  account.enter('postcopy');
  account.begin('postcopy');
  await guest.open(plan, session);
  control.send({ type: 'started' });
  await guest.complete();
  control.send({
    type: 'complete',
    atMs: wallClockMs(),
    // Nobody here sees the hypervisors' own.
    faults: new FaultTimes().summary(),
    announce: { frames: 0, interfaces: [], underWay: false },
    pagesApplied: 0,
  });
  account.end('completed', null);
  // What this side's QEMU said last may still be on its way: without it the source's never ends.
  const late = new Promise((resolve) => setTimeout(resolve, CARRIED_MS).unref());
  await Promise.race([streams.memoryCarried(), late]);
  await guest.close();
}
