/** The Linux test guest as a domain, and what it says on the serial ports of the hosts that it moves between. */
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { LibvirtConnection, Subscription } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { type LinuxGuestOptions, linuxHardware } from '../guest/linux.ts';
import { SerialGuest } from './guest.ts';
import type { LibvirtHost } from './libvirt.ts';
import { Serial } from './serial.ts';
import { machineType } from './versions.ts';

export interface DomainOptions extends LinuxGuestOptions {
  readonly name: string;
  readonly uuid: string;
  /** Further devices, as XML. */
  readonly devices?: string;
}

/** The same on every host: QEMU connects to a serial port that waits there. */
export async function linuxDomain(options: DomainOptions): Promise<string> {
  const { name, uuid, devices = '' } = options;
  const { boot, memoryMiB, smp = 1 } = await linuxHardware(options);
  if (boot.kind !== 'linux') throw new Error('the Linux guest boots a kernel');
  return `<domain type='qemu'>
    <name>${name}</name><uuid>${uuid}</uuid>
    <memory unit='MiB'>${memoryMiB}</memory><vcpu>${smp}</vcpu>
    <os><type arch='x86_64' machine='${await machineType('pc')}'>hvm</type>
      <kernel>${boot.kernel}</kernel><initrd>${boot.initrd}</initrd><cmdline>${boot.append}</cmdline></os>
    <features><acpi/></features>
    <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
    <devices>
      <controller type='usb' model='none'/>
      <memballoon model='none'/>
      <serial type='unix'><source mode='connect' path='/var/log/libvirt/qemu/${name}.sock'/></serial>
      ${devices}
    </devices>
  </domain>`;
}

/** Waits on a host for a domain's QEMU: its serial port connects here when it starts, or comes in. */
export class DomainPlace {
  readonly host: LibvirtHost;
  readonly guest: Promise<SerialGuest>;
  readonly #server: Server;
  #serial: Serial | undefined;

  static async await(host: LibvirtHost, name: string): Promise<DomainPlace> {
    const server = createServer();
    const place = new DomainPlace(host, server, name);
    await new Promise<void>((resolve) =>
      server.listen(join(host.dir, 'log', 'qemu', `${name}.sock`), resolve),
    );
    return place;
  }

  private constructor(host: LibvirtHost, server: Server, name: string) {
    this.host = host;
    this.#server = server;
    this.guest = new Promise((resolve) => {
      server.once('connection', (socket) => {
        // The domain may come back to this host.
        server.close();
        this.#serial = new Serial(socket, `${name} on ${host.name}`);
        resolve(new SerialGuest(this.#serial));
      });
    });
  }

  /** Nobody has come yet. */
  get waits(): boolean {
    return this.#server.listening;
  }

  async stop(): Promise<void> {
    this.#serial?.close();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }
}

interface Change {
  readonly host: string;
  readonly runs: boolean;
  readonly atMs: number;
}

/** Which hosts ran a domain, and when, by the stamps of their QEMUs' own events. */
export class DomainWatcher {
  readonly #changes: Change[] = [];
  readonly #subscriptions: Subscription[] = [];

  /** `runsOn`: where it runs now. */
  static async watch(
    uuid: string,
    connections: Readonly<Record<string, LibvirtConnection>>,
    runsOn: string,
  ): Promise<DomainWatcher> {
    const watcher = new DomainWatcher();
    watcher.#changes.push({ host: runsOn, runs: true, atMs: 0 });
    for (const [host, connection] of Object.entries(connections)) {
      const subscription = await connection.subscribeMonitor(
        '^(STOP|RESUME)$',
        ({ domain, event, timeMs = 0 }) => {
          if (domain.uuid === uuid) watcher.#changes.push({ host, runs: event === 'RESUME', atMs: timeMs });
        },
        { flags: ['pattern'] },
      );
      watcher.#subscriptions.push(subscription);
    }
    return watcher;
  }

  /** Milliseconds from each stop to the next start somewhere else. Throws where two ran at once. */
  handovers(): {
    readonly from: string;
    readonly to: string;
    readonly downtimeMs: number;
    /** When it ran again. */
    readonly atMs: number;
  }[] {
    const running = new Set<string>();
    const found = [];
    let stopped: Change | undefined;
    for (const change of this.#changes.toSorted((a, b) => a.atMs - b.atMs)) {
      if (!change.runs) {
        running.delete(change.host);
        stopped = change;
        continue;
      }
      running.add(change.host);
      if (running.size > 1) throw new Error(`two ran at once: ${JSON.stringify(this.#changes)}`);
      if (stopped && stopped.host !== change.host) {
        const { atMs } = change;
        found.push({ from: stopped.host, to: change.host, downtimeMs: atMs - stopped.atMs, atMs });
      }
    }
    return found;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#subscriptions.splice(0).map((subscription) => subscription.close()));
  }
}

/** "running (unpaused)", or "gone". */
export async function stateOn(connection: LibvirtConnection, uuid: string): Promise<string> {
  try {
    const { state, reason } = await (await connection.domainByUuid(uuid)).state();
    return `${state} (${reason})`;
  } catch (error) {
    if (isLibvirtError(error, 'VIR_ERR_NO_DOMAIN')) return 'gone';
    throw error;
  }
}

/** Ends and undefines it, whatever there is of it. libvirt by itself lets QEMU take two seconds for it. */
export async function removeDomain(
  host: LibvirtHost,
  connection: LibvirtConnection,
  uuid: string,
): Promise<void> {
  let domain: Domain;
  try {
    domain = await connection.domainByUuid(uuid);
    if (await domain.isPersistent()) await domain.undefine();
    if (!(await domain.isActive())) return;
    await host.killDomain(domain.name);
    await domain.destroy();
  } catch (error) {
    if (!isLibvirtError(error, 'VIR_ERR_NO_DOMAIN', 'VIR_ERR_OPERATION_INVALID')) throw error;
  }
}
