/** Whether the source's QEMU, which libvirt has told of a post-copy, can still run the guest by itself: see `qemu/lets-go`. */
import type { Domain } from '@vmferry/native/libvirt/domain';
import { LET_GO, LET_GO_TIMEOUT_MS, RUNS_AGAIN, untilLetGo } from '../../qemu/lets-go.ts';
import { migrationStatus } from '../../qemu/migration-status.ts';
import type { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import { answerOf } from '../answer.ts';
import { type DomainEvents, statusIn } from '../domain-events.ts';
import { monitorOf } from '../monitor.ts';
import { runsAgain } from './faults.ts';

/** Resolves when it cannot. @throws GuestError when its migration ends before */
export async function letsGo(
  domain: Domain,
  events: Pick<DomainEvents, 'next'>,
  stream: Pick<OutgoingStream, 'keepTaking'>,
): Promise<void> {
  const next = events.next((happening) => {
    const status = statusIn(happening);
    return status === RUNS_AGAIN ? undefined : status;
  });
  const other = async (): Promise<string> => {
    const status = await migrationStatus(monitorOf(domain));
    return status === RUNS_AGAIN ? await next : status;
  };
  const left = await answerOf(
    'seen that QEMU knows of the loaded guest',
    untilLetGo(stream, other),
    LET_GO_TIMEOUT_MS,
  );
  if (!LET_GO.includes(left)) throw runsAgain(left);
}
