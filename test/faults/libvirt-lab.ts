/** A domain that goes to and fro between two libvirtds whose agents are processes, and what is done to them. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrateRequestInput } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { Wire } from '../migrate/wire.ts';
import { type SerialGuest, verifyHistory } from '../rig/guest.ts';
import { type DomainPlace, removeDomain, stateOn } from '../rig/libvirt-guest.ts';
import { within } from '../rig/process.ts';
import type { MovingDomain, TwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';
import { StagedAgent, type StagedMigration } from './staged.ts';

/** Slow enough to be in the middle of it. */
const SLOW = 8e6;
/** Until libvirt has done what it does by itself. */
const SETTLED_MS = 90_000;
const HALTED = /post-copy/;
/** Nothing has happened for so long: an operator would try to finish it. */
const LOOKS_HALTED_MS = 15_000;

export const faults = [
  'cut',
  'stall',
  'kill source',
  'kill dest',
  'kill both',
  'restart libvirtd of source',
  'restart libvirtd of dest',
  'stop libvirtd of source',
  'stop libvirtd of dest',
] as const;
export type Fault = (typeof faults)[number];

/**
 * Under emulation: the stack that a vCPU takes its interrupt on was still missing when the stream broke. See
 * docs/libvirt.md on a QEMU that hears nobody any more.
 */
export class DeafQemuError extends Error {
  readonly code = 'TEST_DEAF_QEMU';
}

function unfinished(states: string, by: readonly string[]): Error {
  const words = `it cannot be finished: ${[states, ...by].join('; ')}`;
  const deaf = states === 'paused (post-copy-failed) | running (post-copy)';
  return deaf ? new DeafQemuError(words) : new Error(words);
}

/** One migration, something that happens to it, and where its domain ended up. */
export interface Attempt {
  readonly migration: StagedMigration;
  readonly arrival: Promise<SerialGuest>;
  /** Resolves when the domain ticks there. */
  readonly ticks: () => Promise<void>;
}

export interface Ended {
  readonly report: MigrationReport | undefined;
  readonly runsOn: 'source' | 'dest';
  /** What had to be done for it. */
  readonly by: readonly string[];
}

export interface LabOptions {
  /** It has a disk, which the hosts do not share. */
  readonly disk?: boolean;
  /** It leaves the host's CPUs to others. */
  readonly light?: boolean;
}

export class LibvirtLab {
  readonly libvirts: TwoLibvirts;
  readonly domain: MovingDomain;
  readonly #name: string;
  readonly #wires: Wire[] = [];
  readonly #places: SerialGuest[];
  readonly #disk: boolean;
  source: StagedAgent | undefined;
  dest: StagedAgent | undefined;
  from: HostName = 'a';
  #wire: Wire | undefined;
  #restarted = false;
  #place: DomainPlace | undefined;

  /** Boots a domain on host a. `name` tells the agents of several apart. */
  static async boot(
    libvirts: TwoLibvirts,
    name: string,
    { disk = false, light = false }: LabOptions = {},
  ): Promise<LibvirtLab> {
    return new LibvirtLab(libvirts, await boot(libvirts, { disk, light }), name, disk);
  }

  private constructor(libvirts: TwoLibvirts, domain: MovingDomain, name: string, disk: boolean) {
    this.libvirts = libvirts;
    this.domain = domain;
    this.#name = name;
    this.#places = [...domain.places];
    this.#disk = disk;
  }

  get into(): HostName {
    return this.from === 'a' ? 'b' : 'a';
  }

  get wire(): Wire {
    return this.#wire!;
  }

  #options(host: HostName): object {
    const { dir, agentSettings } = this.libvirts.hosts[host];
    return { stateDir: join(dir, `state-${this.#name}`), libvirt: agentSettings };
  }

  /** Agents of hosts whose libvirtd was restarted are made anew: its namespaces are others. Not in the middle of it. */
  async renew(): Promise<void> {
    if (this.#restarted) await Promise.all([this.source?.kill(), this.dest?.kill()]);
    this.#restarted = false;
    await this.prepare();
  }

  /** Agents that live; those that were killed are started again, and settle first. A wire that holds. */
  async prepare(): Promise<void> {
    const start = async (role: 'source' | 'dest', host: HostName, was: StagedAgent | undefined) =>
      was?.lives ? was : await StagedAgent.start(role, this.#options(host));
    [this.source, this.dest] = await Promise.all([
      start('source', this.from, this.source),
      start('dest', this.into, this.dest),
    ]);
    this.#wire = await Wire.to(this.dest.url);
    this.#wires.push(this.#wire);
  }

  async begin(request: Partial<MigrateRequestInput> = {}): Promise<Attempt> {
    this.#place = await this.libvirts.placeOn(this.into, this.domain.name);
    const place = this.#place;
    const migration = this.source!.migrate({
      guest: this.domain.uri,
      to: this.wire.url,
      maxBandwidth: SLOW,
      copyStorage: this.#disk ? 'all' : 'none',
      ...request,
    });
    return {
      migration,
      arrival: place.guest,
      ticks: async () => {
        await (await within(60_000, () => 'its coming', place.guest)).nextTick();
      },
    };
  }

  /** A post-copy that came to a halt, as the attempt that finishes it begins. */
  async halt(): Promise<Attempt> {
    await this.prepare();
    const attempt = await this.begin({ strategy: 'postcopy' });
    const early = attempt.migration.done();
    early.catch(() => {});
    const ended = await Promise.race([attempt.ticks(), early]);
    if (ended) throw new Error(`a post-copy ended too early: ${JSON.stringify(ended.error)}`);
    this.wire.cut();
    const { outcome } = await early;
    if (outcome !== 'attention') throw new Error(`a post-copy that was cut off is ${outcome}`);
    await this.prepare();
    return attempt;
  }

  /** Finishes it. */
  resume(halted: Attempt, request: Partial<MigrateRequestInput> = {}): Attempt {
    return { ...halted, migration: this.#resume(request) };
  }

  #resume(request: Partial<MigrateRequestInput> = {}): StagedMigration {
    return this.source!.migrate({ guest: this.domain.uri, to: this.wire.url, resume: true, ...request });
  }

  async inflict(fault: Fault): Promise<void> {
    const { hosts } = this.libvirts;
    switch (fault) {
      case 'cut':
        this.wire.cut();
        return;
      case 'stall':
        this.wire.stall();
        return;
      case 'kill source':
        return await this.source!.kill();
      case 'kill dest':
        return await this.dest!.kill();
      case 'kill both':
        await Promise.all([this.source!.kill(), this.dest!.kill()]);
        return;
      case 'restart libvirtd of source':
        this.#restarted = true;
        return await this.libvirts.restart(this.from);
      case 'restart libvirtd of dest':
        this.#restarted = true;
        return await this.libvirts.restart(this.into);
      case 'stop libvirtd of source':
        process.kill(hosts[this.from].daemonPid, 'SIGSTOP');
        return;
      case 'stop libvirtd of dest':
        process.kill(hosts[this.into].daemonPid, 'SIGSTOP');
        return;
    }
  }

  async #state(host: HostName): Promise<string> {
    return await within(
      20_000,
      () => `an answer of libvirtd on ${host}`,
      stateOn(this.libvirts.to[host], this.domain.uuid),
    );
  }

  async states(): Promise<{ readonly here: string; readonly there: string }> {
    return { here: await this.#state(this.from), there: await this.#state(this.into) };
  }

  /** What both QEMUs say of their migration. */
  async asked(): Promise<string> {
    const of = async (host: HostName): Promise<string> => {
      try {
        const domain = await this.domain.on(host);
        const asking = domain.monitorCommand('query-migrate');
        asking.catch(() => {});
        const reply = await within(5000, () => 'no answer', asking);
        return String((reply as { readonly status?: string }).status ?? 'none');
      } catch (error) {
        return (error as Error).message;
      }
    };
    const [here, there] = await Promise.all([of(this.from), of(this.into)]);
    return `QEMU here: ${here}, there: ${there}`;
  }

  /** Lets stopped libvirtds go on. */
  letGoOn(): void {
    for (const { daemonPid } of Object.values(this.libvirts.hosts)) process.kill(daemonPid, 'SIGCONT');
  }

  /**
   * Waits until the domain runs on exactly one host, or is what an operator finishes by the README, and does that.
   * @throws Error where it is lost, runs twice, or cannot be finished
   */
  async settle(attempt: Attempt, doneMs = 120_000): Promise<Ended> {
    const report = await attempt.migration.done(doneMs).catch((error: unknown) => {
      if (this.source!.lives) throw error;
      return undefined;
    });
    this.letGoOn();
    const by: string[] = [];
    // A destination agent that lives ends by itself what it promised to nobody, once it has heard nothing for long enough.
    const leftMs = this.source!.lives && this.dest!.lives ? 45_000 : 3000;
    await this.prepare();
    const runsOn = await this.#whereItRuns(by, leftMs);
    await this.#verify(attempt, runsOn);
    const ended = { report, runsOn, by };
    if (runsOn === 'dest') await this.#turnRound();
    return ended;
  }

  async #whereItRuns(by: string[], leftMs: number): Promise<'source' | 'dest'> {
    const deadline = performance.now() + SETTLED_MS;
    let last = '';
    let since = performance.now();
    for (let resumed = 0; ; ) {
      const { here, there } = await this.states();
      const now = performance.now();
      const both = `${here} | ${there}`;
      if (both !== last) [last, since] = [both, now];
      const ended = (state: string) => state === 'gone' || state.startsWith('shut-off');
      const runs = (state: string) => state.startsWith('running') && !HALTED.test(state);
      if (runs(here) && runs(there)) throw new Error(`it runs twice: ${both}`);
      if (runs(here) && ended(there)) return 'source';
      if (ended(here) && runs(there)) return 'dest';
      if (ended(here) && ended(there)) throw new Error(`it is lost: ${both}`);
      const stoodMs = now - since;
      const halted = /^paused \(post-copy-failed\)$/;
      const haltedHere = halted.test(here) || here === 'running (post-copy-failed)';
      const failed = haltedHere && /\(post-copy-failed\)$/.test(there);
      const waits = HALTED.test(here) && HALTED.test(there) && stoodMs > LOOKS_HALTED_MS;
      if (((failed && stoodMs > 1000) || waits) && resumed < 3) {
        if (!failed) by.push(`${both} ${await this.asked()}`);
        resumed += 1;
        by.push(`resume ${resumed}`);
        const { outcome, error } = await this.#resume().done(180_000);
        if (outcome !== 'completed') by.push(`resume: ${error?.code} ${error?.message}`);
        since = performance.now();
        continue;
      }
      // The README: the domain that is whole on the destination is let run there.
      if (ended(here) && there.startsWith('paused') && !HALTED.test(there) && stoodMs > 3000) {
        by.push(`virsh resume there: ${both}`);
        await (await this.domain.on(this.into)).resume();
        continue;
      }
      // It never ran there.
      if (runs(here) && there.startsWith('paused') && stoodMs > leftMs) {
        by.push(`virsh destroy there: ${both}`);
        await (await this.domain.on(this.into)).destroy();
        continue;
      }
      if (now > deadline) throw unfinished(both, [...by, await this.asked()]);
      await sleep(100);
    }
  }

  /** Ticks, memory, images; and that it has run nowhere else. */
  async #verify(attempt: Attempt, runsOn: 'source' | 'dest'): Promise<void> {
    const came = this.#place!.waits ? undefined : await attempt.arrival;
    if (runsOn === 'dest') this.#places.push(came!);
    else if (/TICK/.test(came?.serial.text ?? '')) throw new Error('it has run there, and runs here');
    await verifyHistory(this.#places);
    if (this.#disk) {
      const left = await this.#images(this.into);
      if (runsOn === 'source' && left.length > 0) throw new Error(`images are left: ${left.join()}`);
    }
  }

  #imagesDir(host: HostName): string {
    return join(this.libvirts.hosts[host].dir, 'lib', 'images');
  }

  #images(host: HostName): Promise<string[]> {
    return readdir(this.#imagesDir(host));
  }

  /** Files of the agents' that nobody uses any more: directories of sockets. */
  async sockets(): Promise<string[]> {
    const found = await Promise.all(
      (['a', 'b'] as const).map(async (host) =>
        (await readdir(join(this.libvirts.hosts[host].dir, 'sockets'))).map((name) => `${host}/${name}`),
      ),
    );
    return found.flat();
  }

  async #turnRound(): Promise<void> {
    await Promise.all([this.source?.kill(), this.dest?.kill()]);
    this.source = undefined;
    this.dest = undefined;
    // Its QEMU still has it for a moment.
    const image = join(this.#imagesDir(this.from), 'data.raw');
    if (existsSync(image)) await rm(image);
    this.from = this.into;
  }

  async log(host: HostName): Promise<string> {
    return await readFile(join(this.libvirts.hosts[host].dir, 'log', 'libvirtd.log'), 'utf8').catch(() => '');
  }

  async close(): Promise<void> {
    this.letGoOn();
    await Promise.all([this.source?.kill(), this.dest?.kill()]);
    for (const wire of this.#wires) await wire.close();
    const { hosts, to } = this.libvirts;
    await Promise.all(
      (['a', 'b'] as const).map((host) => removeDomain(hosts[host], to[host], this.domain.uuid)),
    );
  }
}

async function boot(libvirts: TwoLibvirts, { disk, light }: LabOptions): Promise<MovingDomain> {
  const load = light ? { checkMBps: 8, dirtyMBps: 1, workingSetMiB: 2 } : {};
  if (!disk) return await libvirts.boot(load);
  for (const host of ['a', 'b'] as const) {
    await mkdir(join(libvirts.hosts[host].dir, 'lib', 'images'), { recursive: true });
  }
  const data = Buffer.concat([Buffer.alloc(8 << 20), randomBytes(8 << 20)]);
  await writeFile(join(libvirts.hosts.a.dir, 'lib', 'images', 'data.raw'), data);
  return await libvirts.boot({
    ...load,
    disk: '/dev/vda',
    devices: `<disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/data.raw'/><target dev='vda' bus='virtio'/></disk>`,
  });
}
