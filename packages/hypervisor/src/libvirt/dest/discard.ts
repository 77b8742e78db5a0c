/**
 * What came in is ended: it never ran.
 *
 *     coming in ── hung up on ──▶ libvirt ends it ──▶ gone: the files that were created for it go
 *     taken for moved, paused ── undone here ──────────┘
 *     promised to the source, or loaded in a post-copy that is final ──▶ kept: it is not this side's to end
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { answerOf, doneAnewIfLost } from '../answer.ts';
import { asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import type { DestConnections } from './connections.ts';
import type { DestDomain } from './domain.ts';
import { kept } from './faults.ts';
import type { Intake } from './intake.ts';
import type { DestLook } from './look.ts';

/** libvirt ends a domain that came to nothing by itself; QEMU takes its time under emulation. */
const DISCARD_MS = 30_000;
const POLL_MS = 50;
/** From being opened to being ready to be discarded: images are created in between. */
const OPENED_MS = 120_000;
/** libvirt finishes within fractions of a second. */
const UNDO_MS = 10_000;

export interface Arrived {
  readonly domain: DestDomain;
  readonly look: DestLook;
  readonly intake: Intake;
  readonly connections: DestConnections;
}

/** @throws GuestError when it is still there */
export async function discard(arrived: Arrived, { promised }: { readonly promised: boolean }): Promise<void> {
  const { domain, look, intake, connections } = arrived;
  if (promised) throw kept(domain.name, 'the source has been told that it may run here');
  if (look.postcopyIsFinal && intake.stream.postcopy && intake.loaded)
    throw kept(domain.name, 'it is in post-copy, which the source cannot take back');
  connections.refuse();
  await asking(async () => {
    // What is half begun cannot be ended: there would be images after its end.
    await answerOf("got the domain's disks and events ready", intake.opening, OPENED_MS);
    intake.stream.answerWithZeros();
    // libvirt may be in the middle of it: only then is there something to undo, or nothing.
    const { calls } = connections;
    if (intake.finishes && calls?.asked) await Promise.race([calls.finished, sleep(UNDO_MS)]);
    connections.hangUp();
    intake.stream.close();
    await doneAnewIfLost(
      () => domain.connection,
      async () => {
        if (domain.connection.closed) await domain.reach();
        await untilEnded(arrived);
      },
    );
    await intake.images?.remove();
    await look.preflight?.nvram.remove();
    const volumes = arrived.look.preflight?.volumes.remove(domain.connection.host);
    if (volumes) await answerOf("removed the disks' volumes", volumes);
  });
}

/** libvirt ends what was coming in when it is hung up on; what it finishes meanwhile is undone. */
async function untilEnded({ domain, look, intake }: Arrived): Promise<void> {
  if (!intake.opened) return;
  const deadline = performance.now() + DISCARD_MS;
  for (;;) {
    if (intake.finishes) await answerOf('ended the domain', undo(domain, look, intake));
    if (intake.stopped) return;
    const { state } = (await answerOf("told the domain's state", ifThere(domain.state))) ?? {
      state: 'absent',
    };
    if (state === 'absent' || state === 'shut-off') return;
    if (performance.now() > deadline) throw kept(domain.name, 'libvirt has not ended it');
    await sleep(POLL_MS);
  }
}

/** libvirt has taken it for moved, and it never ran. Where it has not, it ends it by itself. */
async function undo(domain: DestDomain, { definedBefore }: DestLook, { stopped }: Intake): Promise<void> {
  await ifThere(async () => {
    const handle = await domain.handle();
    const undefine = !definedBefore && (await handle.isPersistent());
    const { state, reason } = await handle.state();
    // While it still comes in it is libvirt's.
    if (state === 'paused' && reason !== 'migration' && !stopped) await handle.destroy();
    // An NVRAM that came along is the guest's, which is at home on the source.
    if (undefine && (!stopped || state === 'shut-off')) await handle.undefine(['keep-nvram']);
  });
}
