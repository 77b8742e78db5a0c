/**
 * A simulated guest as its hypervisor has it: memory, vCPUs, registers. It knows nothing of migrations.
 *
 *     paused ⇄ running ──▶ ended
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { GuestError } from '@vmferry/engine/errors';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { type GuestDefinition, streamsOf } from '../workload/streams.ts';
import { clearRange, hasShared, setShared } from './bitmap.ts';
import { PageContent } from './content.ts';
import { type DeviceState, digestOf, registersOf, type Shape } from './device-state.ts';
import { fingerprint } from './fingerprint.ts';
import { allocateState, Content, type GuestState, WAIT_NUMBERS, Wait } from './shared.ts';
import { Vcpus } from './vcpus.ts';
import { describeFault, type Findings } from './verify.ts';
import type { VerifyThreadData } from './verify-thread.ts';

const VERIFY_THREAD = new URL('../../dist/guest/verify-thread.js', import.meta.url);
/** Pages with bytes of their own are kept one by one; a guest that is full of them is another guest. */
const MAX_FOREIGN_PAGES = 4096;

export type MachineVerdict =
  | { readonly sound: true; readonly findings: Findings }
  | { readonly sound: false; readonly why: string; readonly findings: Findings };

/** How long vCPUs waited for pages that were not there. */
export interface PageWaits {
  readonly count: number;
  readonly totalMs: number;
  readonly maxMs: number;
}

export class SimulatedMachine {
  /** Resolves when the machine died or was ended. */
  readonly ended: Promise<GuestError>;
  readonly fingerprint: string;
  readonly #definition: GuestDefinition;
  readonly #state: GuestState;
  readonly #content: PageContent;
  readonly #vcpus: Vcpus;
  readonly #foreign = new Map<number, Uint8Array>();
  #registers: Uint32Array;
  /** How the device state came in: it must come to what its source said. */
  #loaded: { readonly state: DeviceState; readonly sound: boolean } | undefined;
  #resolveEnded!: (why: GuestError) => void;
  #onFault: (page: number) => void = () => {};

  /** A guest at the beginning of its workload, paused. */
  static fresh(definition: GuestDefinition): SimulatedMachine {
    return new SimulatedMachine(definition, 0);
  }

  /** A guest whose memory and state are still to come. */
  static empty(definition: GuestDefinition): SimulatedMachine {
    return new SimulatedMachine(definition, Content.absent);
  }

  private constructor(definition: GuestDefinition, generation: number) {
    const { file } = definition;
    this.#definition = definition;
    this.fingerprint = fingerprint(definition);
    this.#state = allocateState(file.memory / PAGE_BYTES, file.vcpus, streamsOf(definition).length);
    if (generation !== 0) this.#state.generations.fill(generation);
    this.#content = new PageContent(file.seed, file.content);
    this.#registers = registersOf(file.seed);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#vcpus = new Vcpus({
      definition,
      state: this.#state,
      onFault: (page) => this.#onFault(page),
      onDeath: (why) => this.#resolveEnded(gone(file.name, why)),
    });
  }

  get definition(): GuestDefinition {
    return this.#definition;
  }

  get shape(): Shape {
    return this.#state.buffers;
  }

  get running(): boolean {
    return this.#vcpus.running;
  }

  /** One bit a page; see `GuestState`. */
  get dirtyLog(): Uint32Array {
    return this.#state.dirty;
  }

  /** How often every page was written, or one of `Content`. */
  get generations(): Readonly<Uint32Array> {
    return this.#state.generations;
  }

  get waits(): PageWaits {
    const { waits, buffers } = this.#state;
    let count = 0;
    let totalMs = 0;
    let maxMs = 0;
    for (let at = 0; at < buffers.vcpus * WAIT_NUMBERS; at += WAIT_NUMBERS) {
      count += waits[at + Wait.count]!;
      totalMs += waits[at + Wait.totalMs]!;
      maxMs = Math.max(maxMs, waits[at + Wait.maxMs]!);
    }
    return { count, totalMs, maxMs };
  }

  run(): Promise<void> {
    return this.#vcpus.run();
  }

  pause(): Promise<void> {
    return this.#vcpus.pause();
  }

  throttle(percent: number): void {
    this.#vcpus.throttle(percent);
  }

  /** Ends it, as a hypervisor that is told to quit, or is killed. */
  async end(why = 'it was told to end'): Promise<void> {
    await this.#vcpus.end();
    this.#foreign.clear();
    this.#resolveEnded(gone(this.#definition.file.name, why));
  }

  isZeroPage(page: number): boolean {
    const generation = Atomics.load(this.#state.generations, page);
    return generation === Content.absent || this.#content.isZero(page, generation);
  }

  /** The page's bytes as words. */
  readPage(page: number, words: Uint32Array): void {
    const generation = Atomics.load(this.#state.generations, page);
    const foreign = generation === Content.foreign ? this.#foreign.get(page) : undefined;
    if (foreign) new Uint8Array(words.buffer, words.byteOffset, PAGE_BYTES).set(foreign);
    else if (generation === Content.absent) words.fill(0);
    else this.#content.fill(words, page, generation);
  }

  /** Puts bytes in the page's place. They are compared, all of them, with those that the page may have. */
  writePage(page: number, bytes: Uint8Array): void {
    const generation = this.#content.recognise(bytes, page);
    if (generation === undefined) this.#keepForeign(page, Uint8Array.from(bytes));
    else this.#store(page, generation);
  }

  writeZeroPage(page: number): void {
    if (this.#content.isZero(page, 0)) this.#store(page, 0);
    else this.#keepForeign(page, new Uint8Array(PAGE_BYTES));
  }

  #store(page: number, generation: number): void {
    if (this.#foreign.size > 0) this.#foreign.delete(page);
    Atomics.store(this.#state.generations, page, generation);
  }

  #keepForeign(page: number, bytes: Uint8Array): void {
    if (this.#foreign.size >= MAX_FOREIGN_PAGES && !this.#foreign.has(page)) {
      throw new GuestError(
        'E_GUEST_FAILED',
        `more than ${MAX_FOREIGN_PAGES} pages that came are none of the guest's`,
        'give both hosts the same guest file',
      );
    }
    this.#foreign.set(page, bytes);
    Atomics.store(this.#state.generations, page, Content.foreign);
  }

  /** The pages are not there any more. The guest must stand still. */
  dropPages([first, count]: readonly [first: number, count: number]): void {
    this.#state.generations.fill(Content.absent, first, first + count);
    for (const page of this.#foreign.keys()) {
      if (page >= first && page < first + count) this.#foreign.delete(page);
    }
  }

  /** From now on every access looks if its page is there; `onFault` is told of those that are not. */
  demandPages(
    missing: Iterable<readonly [first: number, count: number]>,
    onFault: (page: number) => void,
  ): void {
    const { present } = this.#state;
    present.fill(0xffff_ffff);
    for (const [first, count] of missing) clearRange(present, first, count);
    this.#onFault = onFault;
    this.#vcpus.setDemand(true);
  }

  isMissing(page: number): boolean {
    return !hasShared(this.#state.present, page);
  }

  /** The pages are there: whoever waits for one of them goes on. */
  arrived(pages: Iterable<number>): void {
    const { present } = this.#state;
    for (const page of pages) setShared(present, page);
    this.#vcpus.wakeWaiting((page) => hasShared(present, page));
  }

  /** No page is missing any more. */
  allPagesArrived(): void {
    this.#vcpus.setDemand(false);
  }

  /** The guest must stand still. */
  saveDevices(): Omit<DeviceState, 'digest'> {
    const { positions, chains } = this.#state;
    return { registers: this.#registers, positions, chains };
  }

  loadDevices(state: DeviceState): void {
    this.#registers = state.registers;
    this.#state.positions.set(state.positions);
    this.#state.chains.set(state.chains);
    this.#loaded = { state, sound: Buffer.compare(digestOf(state), state.digest) === 0 };
  }

  /**
   * Compares all memory and the device state with what the workload must have produced. The guest stands still
   * meanwhile.
   */
  async verify(): Promise<MachineVerdict> {
    const wasRunning = this.running;
    await this.pause();
    const findings = await this.#verifyMemory();
    const faults = [...this.#deviceFaults(), ...findings.vcpus];
    if (findings.wrongPages > 0) {
      const more = findings.wrongPages - findings.examples.length;
      faults.push(
        `${findings.wrongPages} of ${findings.pages} pages are wrong: ` +
          `${findings.examples.map(describeFault).join(', ')}${more > 0 ? `, and ${more} more` : ''}`,
      );
    }
    if (wasRunning) await this.run();
    if (faults.length === 0) return { sound: true, findings };
    return { sound: false, why: faults.join('; '), findings };
  }

  async #verifyMemory(): Promise<Findings> {
    const workerData: VerifyThreadData = { definition: this.#definition, buffers: this.#state.buffers };
    const thread = new Worker(VERIFY_THREAD, { workerData, name: 'verify', execArgv: [] });
    try {
      const [findings] = (await once(thread, 'message')) as [Findings];
      return findings;
    } finally {
      await thread.terminate();
    }
  }

  #deviceFaults(): string[] {
    const wanted = registersOf(this.#definition.file.seed);
    const wrong = wanted.findIndex((value, at) => value !== this.#registers[at]);
    return [
      ...(wrong >= 0 ? [`register ${wrong} of the devices has another value than it must have`] : []),
      ...(this.#loaded && !this.#loaded.sound
        ? ['the device state is not what the source sent: its digest is another']
        : []),
    ];
  }
}

function gone(name: string, why: string): GuestError {
  return new GuestError(
    'E_GUEST_GONE',
    `the simulated guest ${name} is gone: ${why}`,
    'look into the log of the agent that has it; a guest that ended by itself is not there to be moved',
  );
}
