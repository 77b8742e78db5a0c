/**
 * Whether the daemon behind a connection answers, and how the calls end that it leaves unanswered: all at once, with why.
 *
 * libvirt's own keepalive has to leave that to us. When it gives a connection up while several threads have calls on it,
 * libvirt 9.0 uses memory that it has freed, or leaves all but one of them waiting for ever. The end of the daemon's
 * socket does it no harm. So its keepalive only keeps the daemon at ease, and what libvirt still waits for when ours is
 * over, nobody waits for any more.
 */
import { errorCodes, errorDomains, errorLevels } from './error-names.ts';
import { LibvirtError } from './errors.ts';

/** What a timer takes. */
const MOST_MS = 2 ** 31 - 1;

const lifelines = new WeakMap<object, Lifeline>();

export interface Keepalive {
  readonly intervalSeconds: number;
  readonly count: number;
}

export class Lifeline {
  readonly #waiting = new Set<(error: LibvirtError) => void>();
  #why: LibvirtError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #asking = false;
  #unanswered = 0;

  /** Of a connection, or of a domain on it; undefined where nobody watches. */
  static of(handle: unknown): Lifeline | undefined {
    return typeof handle === 'object' && handle !== null ? lifelines.get(handle) : undefined;
  }

  static share(of: object, owner: object): void {
    const lifeline = lifelines.get(owner);
    if (lifeline) lifelines.set(of, lifeline);
  }

  /** `ask` resolves, or rejects, when the daemon has answered; undefined when nobody has the connection any more. */
  static watch(
    handle: object,
    { intervalSeconds, count }: Keepalive,
    ask: () => Promise<unknown> | undefined,
    onSilence: () => void,
  ): void {
    const lifeline = new Lifeline();
    lifelines.set(handle, lifeline);
    const look = (): void => {
      if (lifeline.#asking) {
        lifeline.#unanswered += 1;
        if (lifeline.#unanswered < count) return;
        lifeline.#cut();
        onSilence();
        return;
      }
      const answer = ask();
      if (answer === undefined) lifeline.end();
      else lifeline.#expect(answer);
    };
    lifeline.#timer = setInterval(look, Math.min(intervalSeconds * 1000, MOST_MS)).unref();
  }

  #expect(answer: Promise<unknown>): void {
    this.#unanswered = 0;
    this.#asking = true;
    const answered = (): void => {
      this.#asking = false;
    };
    answer.then(answered, answered);
  }

  /** The last question: nobody else asks any more. */
  async last<T>(answer: Promise<T>): Promise<T> {
    this.#expect(answer);
    try {
      return await answer;
    } finally {
      this.end();
    }
  }

  get isCut(): boolean {
    return this.#why !== undefined;
  }

  /** `giveUp` is called when the daemon is given up, or was. Returns what is to be called when it has answered. */
  await(giveUp: (error: LibvirtError) => void): () => void {
    if (this.#why) giveUp(this.#why);
    else this.#waiting.add(giveUp);
    return () => this.#waiting.delete(giveUp);
  }

  /** Nobody watches any more. */
  end(): void {
    clearInterval(this.#timer);
  }

  #cut(): void {
    const why = silence();
    this.#why = why;
    this.end();
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const giveUp of waiting) giveUp(why);
  }
}

/** In libvirt's own words. */
function silence(): LibvirtError {
  return new LibvirtError({
    code: 0,
    message: 'internal error: connection closed due to keepalive timeout',
    call: '',
    number: errorCodes.VIR_ERR_INTERNAL_ERROR,
    domain: errorDomains.VIR_FROM_RPC,
    level: errorLevels.VIR_ERR_ERROR,
    details: [],
  });
}
