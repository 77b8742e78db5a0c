/** Whether the domain may come in: as a new migration (`prepare`), or to finish a post-copy that came to a halt (`rejoin`). */
import type { GuestError } from '@vmferry/engine/errors';
import type { DestPlan, GuestDescription, LibvirtDescription, PrepareResult } from '@vmferry/engine/guest';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { answerOf } from '../answer.ts';
import { comesBack } from '../comes-back.ts';
import { ifThere } from '../if-there.ts';
import type { LibvirtOptions } from '../options.ts';
import { type DestPolicy, type DestPreflight, destPreflight } from '../preflight/dest.ts';
import { parseDomainFacts } from '../preflight/domain-facts.ts';
import { notes, refusals } from '../preflight/finding.ts';
import type { DestDomain } from './domain.ts';
import { endedThere, movedAlready, notHalted, otherDirectory, otherKind } from './faults.ts';

export class DestLook {
  readonly #domain: DestDomain;
  readonly #options: LibvirtOptions;
  readonly #policy: DestPolicy;
  #preflight: DestPreflight | undefined;
  #rendezvous: string | undefined;
  #postcopyIsFinal = false;
  #definedBefore = false;
  #rejoining = false;

  constructor(domain: DestDomain, options: LibvirtOptions, policy: DestPolicy) {
    this.#domain = domain;
    this.#options = options;
    this.#policy = policy;
  }

  /** Of a new migration. */
  get preflight(): DestPreflight | undefined {
    return this.#preflight;
  }

  /** The name of the directory of sockets. */
  get rendezvous(): string | undefined {
    return this.#rendezvous;
  }

  get postcopyIsFinal(): boolean {
    return this.#postcopyIsFinal;
  }

  /** libvirt knew the domain before it came. */
  get definedBefore(): boolean {
    return this.#definedBefore;
  }

  get rejoining(): boolean {
    return this.#rejoining;
  }

  async prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult> {
    const { libvirt } = description;
    if (description.kind !== 'libvirt' || libvirt === undefined) {
      return { ok: false, reasons: [otherKind(description.kind)] };
    }
    this.#describe(libvirt);
    this.#postcopyIsFinal = comesBack(description.hypervisorVersion) === 'never';
    const [before, preflight] = await Promise.all([
      ifThere(() => this.#domain.handle()),
      this.#look(description.preflight, plan),
    ]);
    this.#definedBefore = before !== undefined;
    this.#preflight = preflight;
    const warnings = notes(preflight.findings);
    const reasons = [...this.#sameDirectory(libvirt), ...refusals(preflight.findings)];
    if (reasons.length > 0) return { ok: false, reasons, notes: warnings };
    return { ok: true, hypervisorVersion: await this.#version(), nics: [], notes: warnings };
  }

  async rejoin(description: GuestDescription): Promise<PrepareResult> {
    const { libvirt } = description;
    if (libvirt === undefined) return { ok: false, reasons: [otherKind(description.kind)] };
    this.#describe(libvirt);
    this.#rejoining = true;
    const reasons = this.#sameDirectory(libvirt);
    const { state, reason } = (await ifThere(this.#domain.state)) ?? { state: 'absent', reason: 'unknown' };
    // Whether it has halted only its QEMU knows, whose monitor libvirt keeps to itself: libvirt refuses one that has not.
    if (reason !== 'post-copy-failed' && reason !== 'post-copy')
      reasons.push(await this.#notHalted(state, reason));
    if (reasons.length > 0) return { ok: false, reasons };
    return { ok: true, hypervisorVersion: await this.#version(), nics: [] };
  }

  async #notHalted(state: string, reason: string): Promise<GuestError> {
    const { name } = this.#domain;
    if (state === 'absent' || state === 'shut-off') return endedThere(name);
    return (await this.#hasJob()) ? notHalted(name, `${state} (${reason})`) : movedAlready(name);
  }

  /** Of one that is still coming in libvirt tells no more than that. */
  async #hasJob(): Promise<boolean> {
    try {
      const { type } = await answerOf('told of its job', (await this.#domain.handle()).jobInfo());
      return type !== 'none' && type !== 'completed';
    } catch (error) {
      if (isLibvirtError(error, 'VIR_ERR_OPERATION_INVALID')) return true;
      throw error;
    }
  }

  #describe({ uuid, rendezvous }: LibvirtDescription): void {
    this.#domain.described(uuid);
    this.#rendezvous = rendezvous;
  }

  #sameDirectory({ socketDir }: LibvirtDescription): GuestError[] {
    const own = this.#options.socketDir;
    return socketDir === own ? [] : [otherDirectory(socketDir, own)];
  }

  async #look(told: unknown, { postcopy }: DestPlan): Promise<DestPreflight> {
    const facts = parseDomainFacts(told);
    // It is to have the name that this guest was opened by.
    const shape = { ...facts.shape, name: this.#domain.name };
    const plan = { postcopy, policy: this.#policy };
    return await destPreflight(this.#domain.connection, { ...facts, shape }, plan);
  }

  async #version(): Promise<string> {
    return versionText(await this.#domain.connection.host.hypervisorVersion());
  }
}

/** 7002022 is 7.2.22. */
function versionText(version: number | bigint): string {
  const n = Number(version);
  return `QEMU ${Math.floor(n / 1_000_000)}.${Math.floor(n / 1000) % 1000}.${n % 1000}`;
}
