/**
 * The simulated guest that enters.
 *
 *     idle ── open ──▶ loading ── state-complete ──▶ ready (loaded, paused) ── run ──▶ running
 *                         └────────── discard ◀────────┘
 *
 * In post-copy a vCPU that touches a page which is not there stands still until it is.
 */
import { GuestError } from '@vmferry/engine/errors';
import { EventQueue } from '@vmferry/engine/event-queue';
import {
  type DestEvent,
  type DestGuest,
  type DestItem,
  type Examination,
  type GuestDescription,
  type PageBatch,
  PageKind,
  type PrepareResult,
  type RamLayout,
} from '@vmferry/engine/guest';
import { type Millis, millis, PAGE_BYTES, pages } from '@vmferry/engine/units';
import type { GuestDefinition } from '../workload/streams.ts';
import { decodeOpaque, type Opaque } from './device-state.ts';
import { fingerprint } from './fingerprint.ts';
import { SimulatedMachine } from './machine.ts';
import { RAM } from './page-batches.ts';
import { machineType } from './source-guest.ts';

/**
 * How a host has a guest. `coming-in` until all of its memory is there and was examined; `left`: it runs elsewhere
 * now, was kept, and never runs there again.
 */
export type Residence = 'coming-in' | 'here' | 'left';

const OCCUPIED: Readonly<Record<Residence, { readonly words: string; readonly remedy: string }>> = {
  'coming-in': {
    words: 'is coming to the destination already',
    remedy: 'wait for that migration to end; if it broke off in post-copy, restart the destination agent',
  },
  here: {
    words: 'is on the destination already',
    remedy: 'move it away from there, restart the destination agent, or name another guest with --dest-guest',
  },
  left: {
    words: 'was on the destination before, and was kept there when it left',
    remedy: 'restart the destination agent, and move guests that are to come back without --keep-source',
  },
};

export interface SimulatedDestOptions {
  readonly uri: string;
  readonly definition: GuestDefinition;
  /** What the host has of this name already; undefined: nothing. */
  readonly occupied: () => Residence | undefined;
  /** The host has it from now on. */
  readonly onOpened: (machine: SimulatedMachine) => void;
  /** All of it is there and was examined: it may move on. */
  readonly onArrived: (machine: SimulatedMachine) => void;
  readonly onDiscarded: (machine: SimulatedMachine) => void;
}

export class SimulatedDestGuest implements DestGuest {
  readonly examines = true;
  readonly gone: Promise<GuestError>;
  readonly #options: SimulatedDestOptions;
  readonly #events = new EventQueue<DestEvent>();
  #machine: SimulatedMachine | undefined;
  #resolveGone!: (why: GuestError) => void;
  readonly #missing: (readonly [first: number, count: number])[] = [];
  #missingPages = 0;
  #greeted = false;
  #stateLoaded = false;
  #postcopy = false;
  #ready = deferred();
  #complete = deferred();

  constructor(options: SimulatedDestOptions) {
    this.#options = options;
    this.gone = new Promise((resolve) => {
      this.#resolveGone = resolve;
    });
  }

  get events(): AsyncIterable<DestEvent> {
    return this.#events;
  }

  prepare(description: GuestDescription): Promise<PrepareResult> {
    const { uri, definition } = this.#options;
    const reasons: GuestError[] = [];
    if (description.kind !== 'sim') {
      reasons.push(
        new GuestError(
          'E_GUEST_MISMATCH',
          `${uri} is a simulated guest, and what leaves the source is of the kind "${description.kind}"`,
          'name a destination guest of the same kind with --dest-guest',
        ),
      );
    } else if (description.machine !== machineType(fingerprint(definition))) {
      reasons.push(
        new GuestError(
          'E_GUEST_MISMATCH',
          `${uri} is another guest on the destination: its memory, vCPUs, seed, content or workload differ from the source's`,
          'give both agents the same guest file, or name the right one with --dest-guest',
        ),
      );
    }
    const busy = this.#busy();
    if (busy) reasons.push(busy);
    if (reasons.length > 0) return Promise.resolve({ ok: false, reasons });
    return Promise.resolve({ ok: true, hypervisorVersion: 'memsim 1', nics: [] });
  }

  async open(): Promise<void> {
    const { definition, onOpened } = this.#options;
    const busy = this.#busy();
    if (busy) throw busy;
    const machine = SimulatedMachine.empty(definition);
    this.#machine = machine;
    void machine.ended.then((why) => {
      this.#resolveGone(why);
      this.#ready.reject(why);
      this.#complete.reject(why);
    });
    onOpened(machine);
    // Threads that are still starting would add to the downtime.
    await machine.pause();
  }

  apply(item: DestItem): Promise<void> {
    try {
      this.#apply(item);
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #apply(item: DestItem): void {
    switch (item.type) {
      case 'opaque':
        this.#applyOpaque(decodeOpaque(item.bytes, this.#need().shape));
        return;
      case 'ram-layout':
        this.#checkLayout(item.layout);
        return;
      case 'pages':
        try {
          this.#applyPages(item);
        } finally {
          item.release();
        }
        return;
      case 'state-complete':
        this.#applyStateComplete(item.pagesFollow);
        return;
      case 'end':
        if (this.#missingPages > 0) {
          throw stream(`the stream is over, and ${this.#missingPages} pages did not come`);
        }
        this.#complete.resolve();
        return;
    }
  }

  #applyOpaque(opaque: Opaque): void {
    const machine = this.#need();
    switch (opaque.kind) {
      case 'hello':
        if (opaque.fingerprint !== machine.fingerprint) throw stream('it is that of another guest');
        this.#greeted = true;
        return;
      case 'missing':
        for (const range of opaque.ranges) {
          this.#missing.push(range);
          this.#missingPages += range[1];
          machine.dropPages(range);
        }
        return;
      case 'state':
        machine.loadDevices(opaque.state);
        this.#stateLoaded = true;
        return;
    }
  }

  #checkLayout({ blocks }: RamLayout): void {
    const [block] = blocks;
    const { memory } = this.#options.definition.file;
    if (!this.#greeted || blocks.length !== 1 || block?.bytes !== memory) {
      throw stream('its memory is laid out as that of another guest');
    }
  }

  #applyPages({ block, pages: numbers, kinds, content }: PageBatch): void {
    const machine = this.#need();
    if (block !== RAM) throw stream(`there is no block ${block}`);
    let at = 0;
    for (let index = 0; index < numbers.length; index += 1) {
      const page = numbers[index]!;
      if (page >= machine.shape.pages) throw stream(`there is no page ${page}`);
      // What is there already was written since, perhaps.
      if (this.#postcopy && !machine.isMissing(page)) throw stream(`page ${page} came twice`);
      if (kinds[index] === PageKind.zero) machine.writeZeroPage(page);
      else {
        machine.writePage(page, content.subarray(at, at + PAGE_BYTES));
        at += PAGE_BYTES;
      }
    }
    if (!this.#postcopy) return;
    machine.arrived(numbers);
    this.#missingPages -= numbers.length;
  }

  #applyStateComplete(pagesFollow: boolean): void {
    if (!this.#stateLoaded) throw stream('there is no device state in it');
    if (!pagesFollow && this.#missingPages > 0) throw stream('pages are missing, and none are to follow');
    this.#postcopy = pagesFollow;
    if (pagesFollow) {
      this.#need().demandPages(this.#missing, (page) =>
        this.#events.push({ type: 'fault', range: { block: RAM, first: pages(page), count: pages(1) } }),
      );
    }
    this.#ready.resolve();
  }

  ready(): Promise<void> {
    return this.#ready.promise;
  }

  async complete(): Promise<void> {
    await this.#complete.promise;
  }

  async run({ paused }: { paused: boolean }): Promise<{ readonly atMs: Millis }> {
    if (!paused) await this.#need().run();
    return { atMs: millis(Date.now()) };
  }

  async examine(): Promise<Examination> {
    const machine = this.#need();
    const verdict = await machine.verify().finally(() => this.#options.onArrived(machine));
    const { pages: count, writes, reads } = verdict.findings;
    if (verdict.sound) {
      return {
        found: 'sound',
        words:
          `Verified: all ${count} pages and the device state are what the workload must have produced ` +
          `(${writes} writes and ${reads} reads so far).`,
      };
    }
    return {
      found: 'damage',
      error: new GuestError(
        'E_GUEST_DAMAGED',
        `${this.#options.uri} is damaged on the destination after ${writes} writes: ${verdict.why}`,
        'this is a defect of vmferry or of the hosts: report it with the guest file and both logs',
      ),
    };
  }

  /** It has no network. */
  announceSelf(): Promise<void> {
    return Promise.resolve();
  }

  async discard(): Promise<void> {
    this.#events.end();
    const machine = this.#machine;
    if (!machine) return;
    this.#options.onDiscarded(machine);
    await machine.end('it was discarded');
  }

  settle(): Promise<void> {
    if (this.#postcopy) this.#machine?.allPagesArrived();
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#events.end();
    return Promise.resolve();
  }

  #busy(): GuestError | undefined {
    const { uri, occupied } = this.#options;
    const found = occupied();
    if (found === undefined) return undefined;
    const { words, remedy } = OCCUPIED[found];
    return new GuestError('E_GUEST_BUSY', `${uri} ${words}`, remedy);
  }

  #need(): SimulatedMachine {
    if (!this.#machine) throw new Error('the destination guest was not opened');
    return this.#machine;
  }
}

function stream(why: string): GuestError {
  return new GuestError(
    'E_STREAM',
    `the simulated guest's stream is wrong: ${why}`,
    'use the same version of vmferry on both hosts; if it is, report this with both logs',
  );
}

interface Deferred {
  readonly promise: Promise<void>;
  resolve(): void;
  reject(why: Error): void;
}

function deferred(): Deferred {
  let settle: Omit<Deferred, 'promise'> = { resolve: () => {}, reject: () => {} };
  const promise = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
  });
  // Whoever waits for it is told; nobody may be.
  promise.catch(() => {});
  return { promise, ...settle };
}
