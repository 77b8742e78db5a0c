/** Drives one half of the switchover: the engine decides, this runs what it decided, one event at a time. */
import type { Step } from '@vmferry/engine/switchover/protocol';
import { type Millis, millis } from '@vmferry/engine/units';

export interface MachineParts<State, Event, Action> {
  readonly step: (state: State, event: Event, now: Millis) => Step<State, Action>;
  readonly deadline: (state: State) => Millis | undefined;
  /** Carries an action out, or starts it; whatever comes of it is dispatched as an event. Must not throw. */
  readonly perform: (action: Action) => void;
  readonly tick: Event;
}

/** Monotonic milliseconds, the clock of a machine's deadlines. */
export const machineNow = (): Millis => millis(performance.now());

export class Machine<State, Event, Action> {
  readonly #parts: MachineParts<State, Event, Action>;
  readonly #queue: Event[] = [];
  #state: State;
  #busy = false;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(first: State, parts: MachineParts<State, Event, Action>) {
    this.#parts = parts;
    this.#state = first;
  }

  get state(): State {
    return this.#state;
  }

  /** Carries out the first step's actions. */
  begin(actions: readonly Action[]): void {
    this.#perform(actions);
    this.#arm();
  }

  /** Replaces the state by hand, for changes that are no event. */
  amend(change: (state: State) => State): void {
    this.#state = change(this.#state);
  }

  dispatch(event: Event): void {
    if (this.#stopped) return;
    this.#queue.push(event);
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const { state, actions } = this.#parts.step(this.#state, next, machineNow());
        this.#state = state;
        this.#perform(actions);
      }
    } finally {
      this.#busy = false;
    }
    this.#arm();
  }

  /** No event is taken any more and no timer runs. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #perform(actions: readonly Action[]): void {
    for (const action of actions) this.#parts.perform(action);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const due = this.#parts.deadline(this.#state);
    if (due === undefined || this.#stopped) return;
    this.#timer = setTimeout(() => this.dispatch(this.#parts.tick), Math.max(1, due - machineNow()));
  }
}
