/** A guest's vCPUs as one: run, pause, throttle, end; and what they say. */
import { Worker } from 'node:worker_threads';
import type { GuestDefinition } from '../workload/streams.ts';
import { Control, type GuestState, isRunning, Run, runWord, SIGNAL_WORDS, Signal } from './shared.ts';
import type { VcpuMessage, VcpuThreadData } from './vcpu-thread.ts';

/** From the sources as from `dist`: Node runs no TypeScript. */
const THREAD = new URL('../../dist/guest/vcpu-thread.js', import.meta.url);

export interface VcpusOptions {
  readonly definition: GuestDefinition;
  readonly state: GuestState;
  /** A vCPU waits for this page. */
  readonly onFault: (page: number) => void;
  /** A thread ended although nobody told it to. */
  readonly onDeath: (why: string) => void;
}

export class Vcpus {
  readonly #options: VcpusOptions;
  readonly #threads: readonly Worker[];
  /** vCPUs that have not come to a halt since they were told to. */
  #moving: number;
  #onHalt: (() => void)[] = [];
  #ended = false;
  /** How often they were let run. */
  #runs = 0;

  /** They stand still at first. */
  constructor(options: VcpusOptions) {
    this.#options = options;
    const { definition, state } = options;
    this.#moving = state.buffers.vcpus;
    this.#threads = Array.from({ length: state.buffers.vcpus }, (_, index) => {
      const workerData: VcpuThreadData = { index, definition, buffers: state.buffers };
      const thread = new Worker(THREAD, { workerData, name: `vcpu${index}`, execArgv: [] });
      thread.on('message', (message: VcpuMessage) => this.#onMessage(message));
      thread.on('error', (error) => this.#died(`vCPU ${index} failed: ${error.message}`));
      thread.on('exit', () => this.#died(`vCPU ${index} has ended`));
      return thread;
    });
  }

  get running(): boolean {
    return isRunning(this.#options.state.control);
  }

  /** Also while they are still coming to a halt. */
  async run(): Promise<void> {
    if (this.running) return;
    await this.#halted();
    if (this.#ended || this.running) return;
    this.#moving = this.#threads.length;
    this.#runs += 1;
    this.#tell(Control.run, runWord(Run.running, this.#runs));
  }

  /** Resolves when the last access is done: no vCPU writes any more. */
  async pause(): Promise<void> {
    if (this.running) this.#tell(Control.run, runWord(Run.paused, this.#runs));
    await this.#halted();
  }

  /** 0 to 99 %. */
  throttle(percent: number): void {
    this.#tell(Control.throttle, percent);
  }

  /** Whether accesses have to look if their page is there. Only while they stand still. */
  setDemand(demand: boolean): void {
    this.#tell(Control.demand, demand ? 1 : 0);
  }

  /** Those that wait for one of the pages that came look again. */
  wakeWaiting(isThere: (page: number) => boolean): void {
    const { signals } = this.#options.state;
    for (let index = 0; index < this.#threads.length; index += 1) {
      const awaited = Atomics.load(signals, index * SIGNAL_WORDS + Signal.awaited);
      if (awaited !== 0 && isThere(awaited - 1)) this.#wake(index);
    }
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#tell(Control.run, runWord(Run.ended, this.#runs));
    for (const resolve of this.#onHalt.splice(0)) resolve();
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
  }

  #tell(word: number, value: number): void {
    Atomics.store(this.#options.state.control, word, value);
    for (let index = 0; index < this.#threads.length; index += 1) this.#wake(index);
  }

  #wake(index: number): void {
    const { signals } = this.#options.state;
    const at = index * SIGNAL_WORDS + Signal.wake;
    Atomics.add(signals, at, 1);
    Atomics.notify(signals, at);
  }

  #onMessage(message: VcpuMessage): void {
    if (message.type === 'fault') {
      this.#options.onFault(message.page);
      return;
    }
    this.#moving -= 1;
    if (this.#moving > 0) return;
    for (const resolve of this.#onHalt.splice(0)) resolve();
  }

  #halted(): Promise<void> {
    if (this.#moving === 0 || this.#ended) return Promise.resolve();
    return new Promise((resolve) => this.#onHalt.push(resolve));
  }

  #died(why: string): void {
    if (this.#ended) return;
    void this.end();
    this.#options.onDeath(why);
  }
}
