/** What there is to know of the domain before anything is touched: its description, what is in the way, preflight's facts. */
import { shellWord } from '@vmferry/engine/by-hand';
import { GuestError } from '@vmferry/engine/errors';
import type { GuestDescription, RamBlock, SourcePlan, SourcePreflight } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { standingBlockers } from '../../qemu/inspect/blockers.ts';
import { describeGuest } from '../../qemu/inspect/guest.ts';
import { type ComesBack, comesBack } from '../comes-back.ts';
import { machineOf, readInterfaces } from '../domain-xml.ts';
import { monitorOf } from '../monitor.ts';
import type { DomainFacts } from '../preflight/domain-facts.ts';
import { type Finding, notes, refusals } from '../preflight/finding.ts';
import { gatherDomain, type SourceHost, sourceHost } from '../preflight/gather-domain.ts';
import { sourceFindings } from '../preflight/preflight.ts';
import type { SourceDomain } from './domain.ts';
import { withAddresses } from './domain-addresses.ts';
import { busy, cannotKeep, pausedInPostcopy, unfinished } from './faults.ts';
import { PLAIN } from './migrate-options.ts';

export class SourceLook {
  readonly #domain: SourceDomain;
  readonly #host: Promise<SourceHost>;
  #facts: Promise<DomainFacts> | undefined;
  #blocks: readonly RamBlock[] = [];
  #oneLiveRound = false;
  #comesBack: ComesBack = 'never';
  #wasRunning = true;

  constructor(domain: SourceDomain) {
    this.#domain = domain;
    this.#host = sourceHost(domain.connection);
    this.#host.catch(() => {});
  }

  /** As `describe` found them. */
  get blocks(): readonly RamBlock[] {
    return this.#blocks;
  }

  get oneLiveRound(): boolean {
    return this.#oneLiveRound;
  }

  get wasRunning(): boolean {
    return this.#wasRunning;
  }

  get comesBack(): ComesBack {
    return this.#comesBack;
  }

  /** @param directory where the two hypervisors are to meet */
  async describe(directory: {
    readonly socketDir: string;
    readonly rendezvous: string;
  }): Promise<GuestDescription> {
    const domain = this.#domain.handle;
    const { name, uuid } = domain;
    const state = await domain.state();
    if (state.state === 'shut-off') {
      throw new GuestError(
        'E_GUEST_BLOCKED',
        `the domain ${name} does not run`,
        `start it with "virsh start ${shellWord(name)}", or move its definition with "virsh migrate --offline"`,
      );
    }
    const xml = await domain.xml();
    // A guest's agent may take its time.
    const [own, nics] = await Promise.all([
      state.reason === 'post-copy-failed' || state.reason === 'post-copy'
        ? this.#sketch(xml)
        : describeGuest(monitorOf(domain), name),
      withAddresses(domain, readInterfaces(xml), xml),
    ]);
    this.#blocks = own.blocks;
    this.#oneLiveRound = own.oneLiveRound;
    this.#wasRunning = state.state === 'running';
    this.#comesBack = comesBack(own.hypervisorVersion);
    return {
      ...own,
      kind: 'libvirt',
      nics,
      running: this.#wasRunning,
      libvirt: { uuid, ...directory },
    };
  }

  /** Without QEMU, whose monitor libvirt keeps to itself while a post-copy is to be finished. */
  async #sketch(xml: string): Promise<GuestDescription> {
    const { vcpus, maxMemoryKib } = await this.#domain.handle.info();
    return {
      kind: 'libvirt',
      name: this.#domain.handle.name,
      hypervisorVersion: '',
      machine: machineOf(xml),
      vcpus,
      memoryBytes: bytes(Number(maxMemoryKib) * 1024),
      blocks: [],
      nics: [],
      running: false,
      oneLiveRound: false,
    };
  }

  async blockers(plan: SourcePlan): Promise<readonly GuestError[]> {
    const domain = this.#domain.handle;
    const { name } = domain;
    const { state, reason } = await domain.state();
    const reasons = [
      ...(plan.managed?.keepSource === true ? [cannotKeep()] : []),
      ...(plan.postcopy && state === 'paused' && reason !== 'post-copy-failed'
        ? [pausedInPostcopy(name)]
        : []),
    ];
    if (reason === 'post-copy-failed') return [...reasons, unfinished(name)];
    const [{ findings }, ofQemu] = await Promise.all([
      this.#findings(plan),
      // Of one that does not run `describe` tells.
      state === 'shut-off' ? [] : standingBlockers(monitorOf(domain)),
    ]);
    const all = [...reasons, ...refusals(findings), ...ofQemu];
    const { type } = await domain.jobInfo();
    return type === 'none' || type === 'completed' ? all : [...all, busy(name)];
  }

  async preflight(plan: SourcePlan): Promise<SourcePreflight> {
    const { facts, findings } = await this.#findings(plan);
    // The clocks are compared by it.
    return { facts: { ...facts, wallClockMs: Date.now() }, notes: notes(findings) };
  }

  async #findings(plan: SourcePlan): Promise<{ facts: DomainFacts; findings: readonly Finding[] }> {
    const facts = await this.gathered(plan);
    return { facts, findings: sourceFindings(facts, { postcopy: plan.postcopy }) };
  }

  /** What a migration asks for is asked for once, and its domain is looked at once: that takes libvirt a while. */
  gathered(plan: SourcePlan): Promise<DomainFacts> {
    const { copyStorage, destName, destXml } = plan.managed ?? PLAIN;
    this.#facts ??= gatherDomain(
      this.#domain.connection,
      this.#domain.handle,
      { copyStorage, destName, destXml },
      this.#host,
    );
    return this.#facts;
  }
}
