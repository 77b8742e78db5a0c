/**
 * A post-copy that came to a halt is finished: libvirt is asked, and asked again where nothing comes of it.
 *
 *     asked ── QEMU connects ──▶ pages travel ── the connection ends ──▶ the domain is gone from here: finished
 *       ▲             │                │                 │
 *       │ cleared     └── nothing moves, or it broke, or the domain stays ──▶ halted again
 *       └──────────────────────────────────────────────────────────────────────────┘ a few times
 *
 * What libvirt answers is not always what became of it: it may say that it failed, and go on, and finish. So domain
 * states and QEMU's own events are believed. To ask again is safe whatever came of the time before: libvirt refuses
 * unless both sides are halted, and nothing here ever lets a guest run.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestError, messageOf } from '@vmferry/engine/errors';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { asGuestError } from '../errors.ts';
import { notTakenUp, sentAndHere, stalled } from './faults.ts';

const TRIES = 3;
const POLL_MS = 200;
/** From libvirt's being asked to its QEMU's connecting: some round trips between the two libvirts. */
const TAKEN_UP_MS = 15_000;
const STALLED_MS = 30_000;
/** From the end of QEMU's connection to its saying how it ended. */
const WORD_MS = 15_000;
/** From QEMU's word that all is sent until libvirt has ended it. */
const ENDED_MS = 60_000;
/** Both sides need a moment to see that their connections broke. */
const CLEAR_MS = 1000;
/** From the end of all connections until libvirt has given up what it was asked for. */
const GIVEN_UP_MS = 10_000;

/** What libvirt was asked for, once. */
export interface Attempt {
  /** libvirt's answer: undefined when it went well, or why not. Never rejects. */
  readonly answer: Promise<unknown>;
  /** QEMU's connection for the memory, once it is there. */
  readonly ram: () => Pick<Socket, 'destroyed' | 'bytesRead'> | undefined;
  /** Why libvirt was hung up on, if it was. */
  readonly refused: () => unknown;
  /** The last status that QEMU told of its migration since. */
  readonly status: () => string | undefined;
  /** Hangs up on libvirt and on QEMU. */
  readonly cut: () => Promise<void>;
}

export interface HaltedDomain {
  /** What it is called on the destination. */
  readonly nameThere: string;
  /** Undefined once it is gone. */
  state(): Promise<DomainState | undefined>;
  /** QEMU waits to be resumed; false where it has sent all. @throws GuestError where it can never be resumed */
  ready(): Promise<boolean>;
  ask(): Attempt;
}

/**
 * Resolves when the domain is gone from here, all of it being on the destination.
 *
 * @param tell a sentence for the report
 * @throws GuestError E_STALLED, or what libvirt says, of the last try
 */
export async function finish(domain: HaltedDomain, tell: (note: string) => void): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    if (!(await domain.ready())) return await untilLeft(domain);
    const attempt = domain.ask();
    const why = await carriedOut(domain, attempt);
    if (why === undefined) return;
    await attempt.cut();
    const answered = await Promise.race([attempt.answer.then(() => true), sleep(GIVEN_UP_MS, false)]);
    const state = await domain.state();
    if (left(state)) return;
    if (tries === TRIES || !answered || !isPostcopy(state)) throw asGuestError(why);
    tell(
      `libvirt was asked ${tries === 1 ? 'once' : `${tries} times`} to finish the post-copy and did not: ${messageOf(asGuestError(why))}. It is asked again.`,
    );
    await sleep(CLEAR_MS);
  }
}

/** Why nothing came of it; undefined when the domain is gone. */
async function carriedOut(domain: HaltedDomain, attempt: Attempt): Promise<unknown> {
  let answer: { readonly error: unknown } | undefined;
  void attempt.answer.then((error) => {
    answer = { error };
  });
  const began = performance.now();
  const carried = new Progress();
  let brokenAt: number | undefined;
  for (;;) {
    if (answer && answer.error === undefined) return undefined;
    // Asked for its state while it is at work, libvirt may give it up.
    if (answer && left(await domain.state())) return undefined;
    const now = performance.now();
    const ram = attempt.ram();
    if (ram === undefined) {
      const refused = attempt.refused();
      if (refused !== undefined) return refused;
      if (answer) return answer.error;
      if (now - began > TAKEN_UP_MS) return notTakenUp(domain.nameThere, TAKEN_UP_MS);
    } else if (ram.destroyed) {
      brokenAt ??= now;
      const status = attempt.status();
      const limitMs = status === 'completed' ? ENDED_MS : WORD_MS;
      if (status === 'postcopy-paused' || now - brokenAt > limitMs) return answer?.error ?? cutOff();
    } else if (carried.stoodMs(ram.bytesRead) > STALLED_MS) return stalled(STALLED_MS);
    await sleep(POLL_MS);
  }
}

/** It is not there any more, or only its definition. */
export function left(state: DomainState | undefined): boolean {
  return state === undefined || state.state === 'shut-off';
}

/** Of which it is known here that it may never run here again. */
export function isPostcopy(state: DomainState | undefined): boolean {
  return state?.reason === 'post-copy' || state?.reason === 'post-copy-failed';
}

/** libvirt ends by itself what has sent all. */
async function untilLeft(domain: HaltedDomain): Promise<void> {
  const deadline = performance.now() + ENDED_MS;
  while (!left(await domain.state())) {
    if (performance.now() > deadline) throw sentAndHere(domain.nameThere);
    await sleep(POLL_MS);
  }
}

function cutOff(): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    "QEMU's connection for the domain's memory ended before all of it had moved",
    'see the logs of both QEMUs, then run "vmferry resume" again',
  );
}

/** How long something that should grow has stood. */
class Progress {
  #last = -1;
  #since = 0;

  stoodMs(amount: number): number {
    const now = performance.now();
    if (amount !== this.#last) this.#since = now;
    this.#last = amount;
    return now - this.#since;
  }
}
