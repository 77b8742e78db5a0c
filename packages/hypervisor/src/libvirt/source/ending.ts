/** After the commit the source's libvirt ends the domain itself; where it was restarted it may not know that it should. */
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestError } from '@vmferry/engine/errors';
import { answerOf } from '../answer.ts';
import { asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import type { MigrateCall } from './call.ts';
import type { SourceDomain } from './domain.ts';
import { notInPostcopy } from './faults.ts';
import { isPostcopy, left } from './finishing.ts';

/** From the destination's answer to the end of the source's QEMU; a few seconds, under emulation. */
const ENDED_MS = 60_000;

/** From the domain's end to that of its definition, which libvirt sees to as well. */
const UNDEFINED_MS = 5000;
const POLL_MS = 50;

interface Moved {
  readonly postcopy: boolean;
  /** The definition goes as well. */
  readonly undefineSource: boolean;
}

/** @throws GuestError when the domain is still there */
export async function untilEnded(domain: SourceDomain, call: MigrateCall, how: Moved): Promise<void> {
  const error = await Promise.race([call.answer, sleep(ENDED_MS).then(notEnded)]);
  if (error === undefined) return;
  await asking(async () => {
    if (domain.lost && (await endedUnattended(domain, how))) return;
    if (!left(await domain.stateOrGone())) throw error;
  });
}

/**
 * A libvirtd that was restarted ends the domain by itself when QEMU has sent all in post-copy. After pre-copy it does
 * not know whether the destination has run it, and leaves it paused; here that is known.
 */
async function endedUnattended(domain: SourceDomain, { postcopy, undefineSource }: Moved): Promise<boolean> {
  try {
    await domain.reach();
    const state = postcopy ? await domain.settledState() : await domain.stateOrGone();
    if (left(state)) return true;
    if (state?.state !== 'paused' || state.reason !== 'migration') return false;
    await ifThere(() => endLeft(domain, undefineSource));
    return true;
  } catch (error) {
    if (error instanceof GuestError && error.code === 'E_GUEST_GONE') return true;
    throw error;
  }
}

/** @throws GuestError E_REFUSED where the domain is here, and not in post-copy */
export async function expectHalted(domain: SourceDomain): Promise<void> {
  await halted(domain);
}

/**
 * The destination has all of a domain whose post-copy came to a halt here, and nobody has told libvirt.
 *
 * @throws GuestError E_REFUSED where it is not in post-copy
 */
export async function endMoved(domain: SourceDomain, undefineSource: boolean): Promise<void> {
  if (await halted(domain)) await ifThere(() => endLeft(domain, undefineSource));
}

/** False where it is gone. */
async function halted(domain: SourceDomain): Promise<boolean> {
  const state = await domain.stateOrGone();
  if (state === undefined || left(state)) return false;
  const stands = state.state === 'paused' && isPostcopy(state);
  if (!stands) throw notInPostcopy(domain.handle.name, `${state.state} (${state.reason})`);
  return true;
}

async function endLeft({ handle }: SourceDomain, undefineSource: boolean): Promise<void> {
  const undefine = undefineSource && (await handle.isPersistent());
  await answerOf('ended the domain', handle.destroy());
  if (undefine) await handle.undefine(['keep-nvram']);
}

/** libvirt has ended the domain, and is to have no definition of it either. */
export async function untilUndefined(
  domain: Pick<SourceDomain, 'handle' | 'stateOrGone'>,
  timeoutMs = UNDEFINED_MS,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while ((await domain.stateOrGone()) !== undefined) {
    if (performance.now() > deadline) {
      await ifThere(() => domain.handle.undefine(['keep-nvram']));
      return;
    }
    await sleep(POLL_MS);
  }
}

function notEnded(): GuestError {
  return new GuestError(
    'E_TIMEOUT',
    'libvirt has not ended the migration on the source',
    "see libvirt's log",
  );
}
