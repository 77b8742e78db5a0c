/**
 * Everything before anything is touched: can this guest leave, and will the destination take it in?
 *
 *     guest found ─┬─▶ described ─▶ free to go? addresses? ─┬─▶ offered ─▶ streams attached ─▶ journal open
 *                  └─▶ destination connected ───────────────┘
 *
 * A failure on the way refuses the migration and leaves no trace; `close` then lets go of what was opened. A
 * cancellation waits for nobody who is asked: what comes of that afterwards is let go of when it comes.
 */
import { type AgentLimits, defaultLimits, type SourceAgentOptions } from '@vmferry/agent-core/config';
import { SessionJournal } from '@vmferry/agent-core/session-journal';
import { hostPageFits, POSTCOPY_BATCH, precopyBatch } from '@vmferry/engine/carriage/batch-limits';
import { type ErrorReport, GuestError, type Phase } from '@vmferry/engine/errors';
import type { GuestDescription, SourceGuest, SourcePlan } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import { bytes } from '@vmferry/engine/units';
import { Destination, destinationOf } from './destination.ts';
import { factsOf, Refused, refusal } from './failures.ts';
import { knownAddresses } from './guest-addresses.ts';
import type { SourceGuestFactory } from './guests.ts';
import { managedPlan } from './managed-plan.ts';

export interface PreflightOptions {
  readonly request: MigrateRequest;
  readonly agent: SourceAgentOptions;
  readonly guests: SourceGuestFactory;
  readonly onPhase: (phase: 'preflight') => void;
  readonly onConnected: (session: string) => void;
  readonly note: (text: string) => void;
}

/** What a migration needs to begin. */
export interface Departure {
  readonly guest: SourceGuest;
  readonly description: GuestDescription;
  readonly destination: Destination;
  readonly journal: SessionJournal<'source'>;
  readonly plan: SourcePlan;
  /** Undefined where post-copy is possible; else why not. */
  readonly postcopyObstacle: string | undefined;
}

export class Preflight {
  readonly #options: PreflightOptions;
  readonly #request: MigrateRequest;
  readonly #limits: AgentLimits;
  #phase: Phase = 'connect';
  #guest: SourceGuest | undefined;
  #connecting: Promise<Destination> | undefined;
  #destination: Destination | undefined;
  #postcopyObstacle: string | undefined;
  #preparing: Promise<Departure> | undefined;
  #cancelled = false;
  #interrupt: () => void = () => {};

  constructor(options: PreflightOptions) {
    this.#options = options;
    this.#request = options.request;
    this.#limits = options.agent.limits ?? defaultLimits();
  }

  /** `run` ends at once. */
  cancel(): void {
    this.#cancelled = true;
    this.#interrupt();
  }

  /** Rejects with what `refusalOf` explains. */
  async run(): Promise<Departure> {
    const cancelled = new Promise<never>((_, reject) => {
      this.#interrupt = () => reject(this.#cancellation());
    });
    if (this.#cancelled) this.#interrupt();
    this.#preparing = this.#prepare();
    return await Promise.race([cancelled, this.#preparing]);
  }

  async #prepare(): Promise<Departure> {
    const { agent, guests } = this.#options;
    const guest = await guests(this.#request.guest);
    this.#guest = guest;
    this.#throwIfCancelled();
    this.#phase = 'preflight';
    this.#options.onPhase('preflight');
    // Meanwhile the guest is looked at, and what is wrong with it is told first.
    const connecting = Destination.connect(destinationOf(this.#request, agent));
    this.#connecting = connecting;
    connecting.catch(() => {});
    const choosing = this.#chooseStart(guest);
    choosing.catch(() => {});
    const described = await guest.describe();
    const [description, obstacles] = await Promise.all([
      knownAddresses(described, this.#request.guestAgent, this.#note),
      choosing,
    ]);
    this.#throwIfCancelled();
    if (obstacles.length > 0) {
      throw new Refused(
        refusal([...obstacles, ...(await this.#othersThere(description))], 'source', 'preflight'),
      );
    }
    const destination = await connecting;
    this.#destination = destination;
    this.#options.onConnected(destination.session);
    this.#throwIfCancelled();
    await this.#open(destination, description);
    this.#throwIfCancelled();
    await destination.attach(this.#request.streams);
    // Hypervisors that speak to each other first leave time for it.
    if (!guest.sideConnections) await destination.compareClocks();
    this.#throwIfCancelled();
    const journal = await SessionJournal.open({
      stateDir: agent.stateDir,
      session: destination.session,
      guest: this.#request.guest,
      role: 'source',
      peer: this.#request.to,
    });
    const postcopyObstacle = this.#postcopyObstacle;
    return { guest, description, destination, journal, plan: this.#plan(), postcopyObstacle };
  }

  /** What to say of whatever `run` was left by. */
  refusalOf(thrown: unknown): ErrorReport {
    if (this.#cancelled) return this.#cancellation().report;
    if (thrown instanceof Refused) return thrown.report;
    return { ...factsOf(thrown), phase: this.#phase, guestRunsOn: 'source' };
  }

  /** Lets go of what was opened, and of what still is going to be. */
  async close(): Promise<void> {
    void this.#preparing
      ?.then(
        ({ journal }) => journal.close(),
        () => {},
      )
      .then(() => this.#letGo())
      .catch((error: unknown) => this.#options.agent.log.warn({ err: error }, 'preflight'));
    await this.#letGo();
  }

  async #letGo(): Promise<void> {
    const guest = this.#guest;
    const destination = this.#destination;
    this.#guest = undefined;
    await guest?.close();
    if (destination) await destination.close();
    // One that does not answer is not waited for.
    else
      void this.#connecting?.then(
        (late) => late.close(),
        () => {},
      );
  }

  /** How many data streams were attached, and whether over TLS. */
  get link(): { readonly streams: number; readonly tls: boolean } {
    return { streams: this.#destination?.data.length ?? 0, tls: this.#destination?.tls ?? false };
  }

  /** A migration that was cancelled is over, and has nothing more to say. */
  readonly #note = (text: string): void => {
    if (!this.#cancelled) this.#options.note(text);
  };

  get #mustPostcopy(): boolean {
    return this.#request.strategy === 'postcopy' || this.#request.strategy === 'hybrid';
  }

  /** Can this guest leave, and by post-copy? Gives what is in its way here. */
  async #chooseStart(guest: SourceGuest): Promise<readonly GuestError[]> {
    const must = this.#mustPostcopy;
    const may = must || this.#request.strategy === 'auto' || this.#request.onStall === 'postcopy';
    if (!may) this.#postcopyObstacle = 'pre-copy was asked for';
    let reasons = await guest.blockers(this.#plan());
    if (may && !must && reasons.length > 0) {
      this.#postcopyObstacle = reasons[0]!.message;
      reasons = await guest.blockers(this.#plan());
    }
    return reasons;
  }

  /**
   * What else the destination has against a guest that cannot leave anyway. It is asked only where it judges by what it
   * is told, and touches nothing; one that cannot be asked is no news any more.
   */
  async #othersThere(description: GuestDescription): Promise<readonly GuestError[]> {
    if (this.#guest?.preflight === undefined) return [];
    try {
      const destination = await this.#connecting!;
      const described = await this.#withFacts(description);
      const answer = await destination.open(described, this.#request, this.#plan().postcopy);
      return answer.ok ? [] : answer.reasons;
    } catch (error) {
      this.#options.agent.log.debug({ err: error }, 'preflight');
      return [];
    }
  }

  async #withFacts(description: GuestDescription): Promise<GuestDescription> {
    const own = await this.#guest?.preflight?.(this.#plan());
    for (const text of own?.notes ?? []) this.#note(text);
    return own === undefined ? description : { ...description, preflight: own.facts };
  }

  async #open(destination: Destination, description: GuestDescription): Promise<void> {
    this.#heedFrameSize(destination, description);
    const described = await this.#withFacts(description);
    let answer = await destination.open(described, this.#request, this.#plan().postcopy);
    if (!answer.ok && this.#plan().postcopy && this.#request.strategy === 'auto') {
      const [first] = answer.reasons;
      const onlyPostcopy = answer.reasons.every((reason) => reason.code === 'E_NO_USERFAULTFD');
      if (onlyPostcopy && first) {
        this.#postcopyObstacle = first.message;
        this.#note(`Post-copy is not possible here: ${first.message}`);
        answer = await destination.open(described, this.#request, false);
      }
    }
    for (const text of answer.notes) this.#note(text);
    if (!answer.ok) throw new Refused(refusal(answer.reasons, 'dest', 'preflight'));
  }

  /** In post-copy a host page travels whole, and so in one frame. */
  #heedFrameSize({ maxFrameBytes }: Destination, { blocks }: GuestDescription): void {
    const huge = blocks.find(({ hostPageBytes }) => !hostPageFits(hostPageBytes, maxFrameBytes));
    if (!huge || !this.#plan().postcopy) return;
    const obstacle = new GuestError(
      'E_LIMIT',
      `RAM block ${huge.name} is made of pages of ${huge.hostPageBytes} bytes, and the agents take frames of at most ${maxFrameBytes}`,
      'leave maxFrameBytes out of the configuration of both agents, or use --strategy precopy',
    );
    if (this.#mustPostcopy) throw new Refused(refusal([obstacle], 'source', 'preflight'));
    this.#postcopyObstacle = obstacle.message;
    this.#note(`Post-copy is not possible here: ${obstacle.message}`);
  }

  #plan(): SourcePlan {
    const stall = this.#request.onStall;
    return {
      postcopy: this.#postcopyObstacle === undefined,
      throttle: stall === 'throttle' || (stall === undefined && this.#postcopyObstacle !== undefined),
      batches: {
        precopy: precopyBatch(this.#destination?.maxFrameBytes ?? this.#limits.maxFrameBytes),
        postcopy: POSTCOPY_BATCH,
      },
      bufferBytes: bytes(this.#limits.bufferBytes),
      managed: managedPlan(this.#request),
    };
  }

  #throwIfCancelled(): void {
    if (this.#cancelled) throw this.#cancellation();
  }

  #cancellation(): Refused {
    return new Refused({
      code: 'E_CANCELLED',
      message: 'the migration was cancelled before it began',
      side: 'source',
      phase: this.#phase,
      guestRunsOn: 'source',
      remedy: 'start it again when it is wanted',
    });
  }
}
