/**
 * What an agent does with its sessions when it is told to end.
 *
 *     loose ──▶ given up, the guest goes on at the source ──▶ over
 *     promised: the source has given the guest up, or may have ──▶ waited for as long as something comes ──▶ over
 *     ending: comes to its end by itself ──▶ over
 *
 * In post-copy a guest that runs here stands still at the next page that it misses, and only this agent brings it. Of one
 * that has come the last announcements are sent.
 */

/** How a session stands to the end of its agent. */
export type Standing = 'loose' | 'promised' | 'ending' | 'over';

export interface EndingSession {
  readonly standing: Standing;
  /** What came of the guest so far. */
  readonly receivedBytes: number;
  /** The operator has been called: what comes after that comes at once, or not at all. */
  readonly told: boolean;
  /** Nothing more is announced. Never rejects. */
  readonly announced: Promise<void>;
  /** Only where it is loose. */
  giveUp(): void;
}

const LOOK_MS = 100;
/** A source that is alive sends more than that often. */
const QUIET_MS = 30_000;
const QUIET_WHEN_TOLD_MS = 1000;
/** A guest that is given up is ended by its hypervisor, which may have to be waited for; but not by a host that goes down. */
const ENDING_MS = 180_000;

function quietMs({ told, standing }: EndingSession): number {
  if (told) return QUIET_WHEN_TOLD_MS;
  return standing === 'ending' ? ENDING_MS : QUIET_MS;
}

/** Resolves when nothing of the guest depends on the agent any more, or nothing comes any more. */
export async function windUp(session: EndingSession): Promise<void> {
  await untilOver(session);
  await session.announced;
}

async function untilOver(session: EndingSession): Promise<void> {
  if (session.standing === 'loose') session.giveUp();
  let received = session.receivedBytes;
  let heardAt = performance.now();
  while (session.standing !== 'over') {
    if (session.receivedBytes !== received) {
      received = session.receivedBytes;
      heardAt = performance.now();
    }
    if (performance.now() - heardAt > quietMs(session)) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
