import type { LinuxGuestOptions } from '../guest/linux.ts';
import { type CaptureOptions, PacketCapture } from './capture.ts';
import { ClientProbe } from './client-gap.ts';
import { GuestProcess } from './guest.ts';
import { addNamespace, cleanupLeftovers, ip, removeNamespace, rigPrefix, sysctl } from './netns.ts';
import { type CommandResult, type LaunchOptions, ManagedProcess, type RunOptions, run } from './process.ts';
import type { Nic, QemuProcess } from './qemu.ts';
import type { HostName } from './versions.ts';
import { RunWatcher } from './watcher.ts';

/*
 *   client ──── switch (br0: to-a, to-b, to-client) ──── a (br0: up0, tap0…)
 *                                              └──────── b (br0: up0, tap0…)
 *
 *   a (mig0) ──── switch (br1: mig-a, mig-b) ──── b (mig0)       the migration link, shaped at both ends
 */

export type Place = HostName | 'switch' | 'client';

const PLACES: readonly Place[] = ['a', 'b', 'switch', 'client'];

export const ADDRESSES = {
  /** On the migration link. */
  a: '10.77.0.1',
  b: '10.77.0.2',
  client: '10.0.0.1',
  guest: '10.0.0.2',
  client6: 'fd00:10::1',
  guest6: 'fd00:10::2',
} as const;

export interface TwoHostsOptions {
  /** As `tc` writes it, such as `1gbit`; undefined leaves the link unshaped. */
  readonly rate?: string;
  /** Taps on each host. Default 1. */
  readonly taps?: number;
  /** Gives the client an IPv6 address; without it the client and the hosts have no IPv6 at all. */
  readonly ipv6?: boolean;
}

export interface RigGuestOptions extends Omit<LinuxGuestOptions, 'nics' | 'addresses' | 'addresses6'> {
  /** NICs on the host's taps, the first with `ADDRESSES.guest`. Default 1. */
  readonly nicCount?: number;
  /** The first NIC also has `ADDRESSES.guest6`. */
  readonly ipv6?: boolean;
  /** False: the NIC cannot ask the guest to announce itself. */
  readonly guestAnnounce?: boolean;
  /** For messages. Default `src` or `dst`. */
  readonly name?: string;
}

export interface LinkCounters {
  readonly txBytes: number;
  readonly rxBytes: number;
}

/** The MAC address of a guest's n-th NIC, the same on both hosts. */
export function guestMac(n = 0): string {
  return `52:54:00:76:66:${(n + 1).toString(16).padStart(2, '0')}`;
}

/** Two hosts, a switch and a client in network namespaces of their own, and what was started in them. */
export class TwoHosts {
  readonly #prefix = rigPrefix();
  readonly #started: { stop(): Promise<unknown> }[] = [];
  readonly #options: TwoHostsOptions;
  #closed: Promise<void> | undefined;

  private constructor(options: TwoHostsOptions) {
    this.#options = options;
  }

  static async create(options: TwoHostsOptions): Promise<TwoHosts> {
    await cleanupLeftovers();
    const rig = new TwoHosts(options);
    try {
      await rig.#build();
    } catch (error) {
      await rig.close();
      throw error;
    }
    return rig;
  }

  /** The name of a network namespace. */
  namespace(place: Place): string {
    return `${this.#prefix}-${place}`;
  }

  /** Runs a command to its end on a host; throws CommandError unless it exits with 0. */
  exec(place: Place, argv: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return run(argv, { ...options, namespace: this.namespace(place) });
  }

  /** Starts a process on a host; `close` ends it if it still runs. */
  spawn(place: Place, argv: readonly string[], options: LaunchOptions = {}): ManagedProcess {
    return this.own(new ManagedProcess(argv, { ...options, namespace: this.namespace(place) }));
  }

  /** Boots the Linux guest on a host's taps and waits for READY. */
  async startGuest(host: HostName, options: RigGuestOptions = {}): Promise<GuestProcess> {
    const placement = { name: options.name ?? 'src', namespace: this.namespace(host), host };
    return this.own(await GuestProcess.boot(guestOptions(options), placement));
  }

  /** Starts `-incoming defer -S` on a host, with the options that the source was given. */
  async startIncoming(
    host: HostName,
    options: RigGuestOptions & { readonly autostart?: boolean } = {},
  ): Promise<GuestProcess> {
    const { autostart = false, ...guest } = options;
    const placement = { name: options.name ?? 'dst', namespace: this.namespace(host), host, autostart };
    return this.own(await GuestProcess.incoming(guestOptions(guest), placement));
  }

  /** Watches these QEMUs for two that run at once; see RunWatcher. */
  async watch(qemus: readonly QemuProcess[]): Promise<RunWatcher> {
    const watcher = await RunWatcher.watch(qemus);
    this.own({ stop: () => watcher.close() });
    return watcher;
  }

  /** A client that talks to the guest all the time; see ClientProbe. */
  async probe(): Promise<ClientProbe> {
    return this.own(await ClientProbe.start(this.namespace('client'), ADDRESSES.guest));
  }

  /** Captures from now on; see PacketCapture. */
  async capture(place: Place, ifname: string, options: CaptureOptions = {}): Promise<PacketCapture> {
    return this.own(await PacketCapture.start(this.namespace(place), ifname, options));
  }

  /** Hands something to the rig, which stops it when it closes. */
  own<T extends { stop(): Promise<unknown> }>(thing: T): T {
    this.#started.push(thing);
    return thing;
  }

  /** The switch's port for a MAC address (`to-a`, `to-b`, `to-client`), or undefined if it has learnt none. */
  async switchPort(mac: string): Promise<string | undefined> {
    const { stdout } = await run([
      'bridge',
      '-n',
      this.namespace('switch'),
      '-j',
      'fdb',
      'show',
      'br',
      'br0',
    ]);
    const entries = JSON.parse(stdout) as { mac: string; ifname: string; state?: string }[];
    return entries.find((e) => e.mac.toLowerCase() === mac.toLowerCase() && e.state !== 'permanent')?.ifname;
  }

  /** Bytes on the migration link as host a counts them, headers included. */
  async linkCounters(): Promise<LinkCounters> {
    const { stdout } = await run(['ip', '-n', this.namespace('a'), '-j', '-s', 'link', 'show', 'mig0']);
    const [link] = JSON.parse(stdout) as { stats64: { tx: { bytes: number }; rx: { bytes: number } } }[];
    if (!link) throw new Error('no migration link');
    return { txBytes: link.stats64.tx.bytes, rxBytes: link.stats64.rx.bytes };
  }

  /** Shapes the migration link in both directions from now on; undefined removes the limit. */
  async setRate(rate: string | undefined): Promise<void> {
    for (const host of ['a', 'b'] as const) {
      const tc = ['tc', '-n', this.namespace(host), 'qdisc'];
      if (rate === undefined) await run([...tc, 'replace', 'dev', 'mig0', 'root', 'noqueue']);
      else {
        const shape = ['tbf', 'rate', rate, 'burst', '256kb', 'latency', '25ms'];
        await run([...tc, 'replace', 'dev', 'mig0', 'root', ...shape]);
      }
    }
  }

  /** From now on the migration link swallows everything; neither end gets a sign of it. */
  async cut(): Promise<void> {
    await this.#portState(0);
  }

  /** Ends a cut. */
  async heal(): Promise<void> {
    await this.#portState(3);
  }

  /** Ends all that was started here and removes the namespaces. Any number of times. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      const ends = await Promise.allSettled(this.#started.reverse().map((thing) => thing.stop()));
      const gone = await Promise.allSettled(PLACES.map((place) => removeNamespace(this.namespace(place))));
      const errors = [...ends, ...gone].flatMap((end) => (end.status === 'rejected' ? [end.reason] : []));
      if (errors.length > 0) throw new AggregateError(errors, 'the rig did not close cleanly');
    })();
    return this.#closed;
  }

  async #portState(state: number): Promise<void> {
    for (const port of ['mig-a', 'mig-b']) {
      const args = ['link', 'set', 'dev', port, 'state', String(state)];
      await run(['bridge', '-n', this.namespace('switch'), ...args]);
    }
  }

  async #build(): Promise<void> {
    const name = (place: Place) => this.namespace(place);
    await Promise.all(PLACES.map((place) => addNamespace(name(place))));
    const bridge = (dev: string) =>
      `link add ${dev} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`;
    await ip(name('switch'), [
      bridge('br0'),
      bridge('br1'),
      `link add to-client type veth peer name eth0 netns ${name('client')}`,
      ...(['a', 'b'] as const).flatMap((host) => [
        `link add to-${host} type veth peer name up0 netns ${name(host)}`,
        `link add mig-${host} type veth peer name mig0 netns ${name(host)}`,
        `link set mig-${host} master br1 up`,
        `link set to-${host} master br0 up`,
      ]),
      'link set to-client master br0 up',
      'link set br0 up',
      'link set br1 up',
    ]);
    for (const host of ['a', 'b'] as const) {
      const taps = Array.from({ length: this.#options.taps ?? 1 }, (_, i) => `tap${i}`);
      await ip(name(host), [
        bridge('br0'),
        'link set up0 master br0 up',
        ...taps.flatMap((tap) => [`tuntap add dev ${tap} mode tap`, `link set ${tap} master br0 up`]),
        'link set br0 up',
        `address add ${ADDRESSES[host]}/24 dev mig0`,
        'link set mig0 up',
      ]);
    }
    if (this.#options.ipv6) {
      await sysctl(name('client'), {
        'net.ipv6.conf.all.disable_ipv6': '0',
        'net.ipv6.conf.eth0.accept_ra': '0',
      });
    }
    await ip(name('client'), [
      `address add ${ADDRESSES.client}/24 dev eth0`,
      'link set eth0 up',
      // Retransmit soon, so that the gap that a TCP client sees is the guest's and not TCP's 200 ms.
      `route replace 10.0.0.0/24 dev eth0 src ${ADDRESSES.client} rto_min 10ms`,
      ...(this.#options.ipv6 ? [`address add ${ADDRESSES.client6}/64 dev eth0 nodad`] : []),
    ]);
    if (this.#options.rate !== undefined) await this.setRate(this.#options.rate);
  }
}

function guestOptions(options: RigGuestOptions): LinuxGuestOptions {
  const { nicCount = 1, ipv6 = false, guestAnnounce, name: _, ...rest } = options;
  const nics = Array.from({ length: nicCount }, (__, i): Nic => {
    const tap = { kind: 'tap', ifname: `tap${i}`, mac: guestMac(i) } as const;
    return guestAnnounce === undefined ? tap : { ...tap, guestAnnounce };
  });
  return {
    ...rest,
    nics,
    addresses: nics.map((_nic, i) => `eth${i}:10.${i}.0.2/24`),
    addresses6: ipv6 && nicCount > 0 ? [`eth0:${ADDRESSES.guest6}/64`] : [],
  };
}

/** Builds the two hosts; close them in any case. */
export function twoHosts(options: TwoHostsOptions = {}): Promise<TwoHosts> {
  return TwoHosts.create(options);
}
