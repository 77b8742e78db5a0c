/**
 * Registrations with libvirt that several listeners share: on one connection libvirt takes a callback for a kind of
 * event, of one domain or of all, only once. It is registered with the first listener and given back with the last.
 */

interface Shared {
  readonly listeners: Set<(event: unknown) => void>;
  /** The addon's, once it is registered. */
  readonly number: Promise<number>;
}

export class SharedEvents {
  readonly #unregister: (number: number) => Promise<void>;
  readonly #shared = new Map<string, Shared>();
  /** Being given back: until then libvirt takes no other of its kind. Never reject. */
  readonly #leaving = new Map<string, Promise<void>>();

  constructor(unregister: (number: number) => Promise<void>) {
    this.#unregister = unregister;
  }

  /**
   * Resolves when the listener misses nothing any more, with what ends that. Rejects as `register` does.
   *
   * @param key what libvirt tells registrations apart by
   */
  async add<Event>(
    key: string,
    register: (tell: (event: Event) => void) => Promise<number>,
    listener: (event: Event) => void,
  ): Promise<() => Promise<void>> {
    while (this.#leaving.has(key)) await this.#leaving.get(key);
    const shared = this.#shared.get(key) ?? this.#register(key, register);
    // One of its own: the same function may listen twice.
    const own = (event: unknown): void => listener(event as Event);
    shared.listeners.add(own);
    await shared.number;
    return () => this.#remove(key, shared, own);
  }

  /** The connection closes, which ends them all: nobody joins one any more. */
  forget(): void {
    this.#shared.clear();
  }

  #register<Event>(key: string, register: (tell: (event: Event) => void) => Promise<number>): Shared {
    const listeners = new Set<(event: unknown) => void>();
    const number = register((event) => tellAll(listeners, event));
    const shared = { listeners, number };
    this.#shared.set(key, shared);
    number.catch(() => this.#shared.delete(key));
    return shared;
  }

  async #remove(key: string, shared: Shared, own: (event: unknown) => void): Promise<void> {
    shared.listeners.delete(own);
    if (shared.listeners.size > 0) return;
    this.#shared.delete(key);
    const left = shared.number.then((number) => this.#unregister(number));
    const settled = left.catch(() => {}).finally(() => this.#leaving.delete(key));
    this.#leaving.set(key, settled);
    await left;
  }
}

/** What one throws is an uncaught exception, and the others are told all the same. */
function tellAll(listeners: ReadonlySet<(event: unknown) => void>, event: unknown): void {
  for (const listener of [...listeners]) {
    // One of them may have ended another.
    if (!listeners.has(listener)) continue;
    try {
      listener(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
