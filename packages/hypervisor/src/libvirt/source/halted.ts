/**
 * A post-copy that came to a halt, on the source: left so that it can be finished (`suspend`), and finished (`finish`),
 * by a call to libvirt anew whose memory goes to the destination as it is.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ManagedPlan } from '@vmferry/engine/guest';
import type { MigrateOptions } from '@vmferry/native/libvirt/domain';
import type { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import { ResumptionRelay } from '../../qemu/resumption-relay.ts';
import { type DomainEvents, statusIn } from '../domain-events.ts';
import type { LibvirtOptions } from '../options.ts';
import type { Rendezvous } from '../rendezvous.ts';
import type { MigrateCall } from './call.ts';
import type { SourceConnections } from './connections.ts';
import type { SourceDomain } from './domain.ts';
import { untilUndefined } from './ending.ts';
import { givenUp, notTakenUp } from './faults.ts';
import { type Attempt, finish } from './finishing.ts';
import type { Losses } from './losses.ts';
import { resumeOptions } from './migrate-options.ts';
import { blocksToResume } from './resumable.ts';

/** From the end of the stream to libvirt's having seen it, before its calls are cut off. */
const SEEN_MS = 1000;
const SETTLE_TIMEOUT_MS = 60_000;
/** From libvirt's having prepared the destination to its QEMU's word that it goes on. */
const GOES_ON_MS = 10_000;

interface HaltedParts {
  readonly domain: SourceDomain;
  readonly events: DomainEvents;
  readonly connections: SourceConnections;
  readonly call: MigrateCall;
  readonly losses: Losses;
  readonly options: LibvirtOptions;
}

export class HaltedPostcopy {
  readonly #parts: HaltedParts;
  /** Of the last try. */
  #relay: ResumptionRelay | undefined;
  #blocks: readonly string[] = [];
  #nameThere = '';
  #refused: unknown;

  constructor(parts: HaltedParts) {
    this.#parts = parts;
  }

  /** libvirt sees that the stream has ended, and has the domain in post-copy-failed. */
  async suspend(stream: OutgoingStream | undefined): Promise<void> {
    const { connections, call } = this.#parts;
    stream?.giveUp();
    stream?.cut();
    await Promise.race([call.answer, sleep(SEEN_MS)]);
    connections.hangUp();
    await Promise.race([call.answer, sleep(SETTLE_TIMEOUT_MS)]);
  }

  async finish(plan: ManagedPlan, tell: (note: string) => void): Promise<void> {
    const { domain, connections, call, losses, options } = this.#parts;
    this.#nameThere = plan.destName ?? domain.handle.name;
    const rendezvous = await connections.open();
    await connections.serveCalls(
      rendezvous,
      { holdAnswer: false, prepared: () => this.#goesOnThere() },
      { wanted: () => !call.givenUp, begun: (calls) => void losses.watchCalls(calls) },
    );
    await connections.serveMemory(rendezvous, (memory) => {
      if (this.#relay) this.#relay.join(memory);
      else memory.destroy();
    });
    const how = resumeOptions(plan, rendezvous, { persistent: await domain.handle.isPersistent() });
    const ready = async (): Promise<boolean> => {
      if (call.givenUp) throw givenUp();
      const blocks = await blocksToResume(domain.handle, options);
      this.#blocks = blocks ?? [];
      return blocks !== undefined;
    };
    const state = () => domain.stateOrGone();
    await finish({ nameThere: this.#nameThere, state, ready, ask: () => this.#ask(rendezvous, how) }, tell);
    if (plan.undefineSource) await untilUndefined(domain);
  }

  #ask(rendezvous: Rendezvous, options: MigrateOptions): Attempt {
    const { events, connections, call } = this.#parts;
    this.#relay = undefined;
    this.#refused = undefined;
    let status: string | undefined;
    const off = events.on((happening) => {
      status = statusIn(happening) ?? status;
    });
    return {
      answer: call.make(rendezvous, () => Promise.resolve(options)),
      ram: () => this.#relay?.memory,
      status: () => status,
      refused: () => this.#refused,
      cut: async () => {
        off();
        connections.hangUp();
        await this.letGo();
      },
    };
  }

  /** QEMU's connection is closed, once that can be: see `resumption-relay`. */
  async letGo(): Promise<void> {
    await this.#relay?.cut();
  }

  /** The destination's QEMU takes its stream up before this side's begins: false where it does not. */
  async #goesOnThere(): Promise<boolean> {
    const relay = new ResumptionRelay(this.#blocks);
    this.#relay = relay;
    this.#parts.connections.side.push({ kind: 'ram', stream: relay.stream });
    const goesOn = await Promise.race([
      relay.goesOn.then(() => true).catch(() => false),
      sleep(GOES_ON_MS, false, { ref: false }),
    ]);
    if (goesOn) return true;
    this.#refused = notTakenUp(this.#nameThere, GOES_ON_MS);
    await relay.cut();
    return false;
  }
}
