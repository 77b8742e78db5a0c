/**
 * One migration's events, for any number of observers. A slow observer never holds up the migration nor
 * another observer: of its unread progress events only the latest are kept. All other events are kept.
 */
import { MigrationError } from '@vmferry/engine/errors';
import type { MigrationEvent } from '@vmferry/engine/events';

/** An observer's unread events above which progress events are dropped, the oldest first. */
const QUEUE_SOFT = 64;
/**
 * Unread events other than progress at which an observer is given up with `E_LIMIT`: memory is bounded,
 * and an observer that lags by this many decisions and rounds is not reading at all.
 */
const QUEUE_HARD = 8192;

export class EventHub {
  readonly #observers = new Set<Observer>();
  #finished: Extract<MigrationEvent, { type: 'finished' }> | undefined;

  /** Gives the event to every observer. `finished` ends them all; what is published after it is ignored. */
  publish(event: MigrationEvent): void {
    if (this.#finished !== undefined) return;
    for (const observer of this.#observers) observer.push(event);
    if (event.type !== 'finished') return;
    this.#finished = event;
    for (const observer of this.#observers) observer.end();
    this.#observers.clear();
  }

  /**
   * Everything that is published from this call on (not from the first `next`), up to and with `finished`.
   * An observer that comes later still gets `finished`. May be iterated once.
   */
  observe(): AsyncIterableIterator<MigrationEvent> {
    const observer = new Observer((self) => this.#observers.delete(self));
    if (this.#finished !== undefined) {
      observer.push(this.#finished);
      observer.end();
    } else {
      this.#observers.add(observer);
    }
    return observer;
  }

  /** How many observe now. */
  get observers(): number {
    return this.#observers.size;
  }
}

interface Waiter {
  resolve(result: IteratorResult<MigrationEvent>): void;
  reject(error: MigrationError): void;
}

class Observer implements AsyncIterableIterator<MigrationEvent> {
  readonly #queue: MigrationEvent[] = [];
  readonly #waiters: Waiter[] = [];
  readonly #leave: (self: Observer) => void;
  #ended = false;
  #error: MigrationError | undefined;

  constructor(leave: (self: Observer) => void) {
    this.#leave = leave;
  }

  push(event: MigrationEvent): void {
    if (this.#ended) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve({ done: false, value: event });
      return;
    }
    this.#queue.push(event);
    if (this.#queue.length <= QUEUE_SOFT) return;
    const oldestProgress = this.#queue.findIndex((queued) => queued.type === 'progress');
    if (oldestProgress >= 0) {
      this.#queue.splice(oldestProgress, 1);
    } else if (this.#queue.length > QUEUE_HARD) {
      this.#giveUp();
    }
  }

  end(): void {
    this.#ended = true;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<MigrationEvent>> {
    const event = this.#queue.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<MigrationEvent>> {
    this.#queue.length = 0;
    this.#leave(this);
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #giveUp(): void {
    this.#queue.length = 0;
    this.#leave(this);
    this.#error = new MigrationError(`an observer left ${QUEUE_HARD} events unread and was dropped`, {
      code: 'E_LIMIT',
      side: 'cli',
      phase: 'connect',
      guestRunsOn: 'unknown',
      remedy: 'The migration goes on; observe it again with `vmferry watch`.',
    });
    this.end();
  }
}
