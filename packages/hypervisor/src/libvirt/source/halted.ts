/**
 * A post-copy that came to a halt, on the source: left so that it can be finished (`suspend`), and finished (`finish`),
 * by a call to libvirt anew whose memory goes to the destination as it is.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ManagedPlan } from '@vmferry/engine/guest';
import type { MigrateOptions } from '@vmferry/native/libvirt/domain';
import type { OutgoingStream } from '../../qemu/outgoing-stream.ts';
import type { DomainEvents } from '../domain-events.ts';
import type { Rendezvous } from '../rendezvous.ts';
import type { MigrateCall } from './call.ts';
import type { SourceConnections } from './connections.ts';
import type { SourceDomain } from './domain.ts';
import { untilUndefined } from './ending.ts';
import { type Attempt, finish } from './finishing.ts';
import type { Losses } from './losses.ts';
import { resumeOptions } from './migrate-options.ts';

/** From the end of the stream to libvirt's having seen it, before its calls are cut off. */
const SEEN_MS = 1000;
const SETTLE_TIMEOUT_MS = 60_000;

interface HaltedParts {
  readonly domain: SourceDomain;
  readonly events: DomainEvents;
  readonly connections: SourceConnections;
  readonly call: MigrateCall;
  readonly losses: Losses;
}

export class HaltedPostcopy {
  readonly #parts: HaltedParts;
  #memory: Socket | undefined;

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
    const { domain, connections, call, losses } = this.#parts;
    const rendezvous = await connections.open();
    await connections.serveCalls(
      rendezvous,
      { holdAnswer: false },
      { wanted: () => !call.givenUp, begun: (calls) => void losses.watchCalls(calls) },
    );
    await connections.serveMemory(rendezvous, (memory) => {
      this.#memory = memory;
    });
    const options = resumeOptions(plan, rendezvous, { persistent: await domain.handle.isPersistent() });
    const ask = () => this.#ask(rendezvous, options);
    const nameThere = plan.destName ?? domain.handle.name;
    await finish({ nameThere, state: () => domain.stateOrGone(), ask }, tell);
    if (plan.undefineSource) await untilUndefined(domain);
  }

  #ask(rendezvous: Rendezvous, options: MigrateOptions): Attempt {
    const { events, connections, call } = this.#parts;
    this.#memory = undefined;
    let status: string | undefined;
    const off = events.on((happening) => {
      if (happening.type === 'monitor' && happening.event === 'MIGRATION')
        status = String(happening.data['status']);
    });
    return {
      answer: call.make(rendezvous, () => Promise.resolve(options)),
      ram: () => this.#memory,
      status: () => status,
      cut: () => {
        off();
        connections.hangUp();
        this.#memory?.destroy();
      },
    };
  }
}
