import type { Boot, Hardware, Nic } from '../rig/qemu.ts';
import { buildGuest } from './build.ts';

/** What the verifier in the guest does; every default is small, for tests that are to be short. */
export interface Workload {
  /** Memory under test, MiB. Default 64. */
  readonly fillMiB?: number;
  /** Default 8. */
  readonly workingSetMiB?: number;
  /** Whole pages written, 10^6 bytes/s. Default 4. */
  readonly dirtyMBps?: number;
  /** The checker's pace, 10^6 bytes/s; 0 is as fast as it can. Default 64. */
  readonly checkMBps?: number;
  /** Default 75; the rest is random. */
  readonly textPercent?: number;
  /** Pages that are never touched until the writer comes. Default 0. */
  readonly zeroPercent?: number;
  /** Every n-th write of a page makes it all zeros; 0 is never. Default 16. */
  readonly zeroEvery?: number;
}

export interface LinuxGuestOptions extends Omit<Hardware, 'boot' | 'memoryMiB'>, Workload {
  /** Default 192. */
  readonly memoryMiB?: number;
  /** Addresses inside, `eth0:10.0.0.2/24`. */
  readonly addresses?: readonly string[];
  readonly addresses6?: readonly string[];
  /** A disk that it writes to and checks: `/dev/vda`. */
  readonly disk?: string;
  /** Sends nothing unasked: IPv6 is off, no address is announced. */
  readonly silent?: boolean;
}

/** The guest of the benchmarks: 256 MiB filled, a working set of 32 MiB written at 18 MB/s. */
export const BENCH_GUEST = {
  memoryMiB: 512,
  fillMiB: 256,
  workingSetMiB: 32,
  dirtyMBps: 18,
  checkMBps: 64,
  zeroEvery: 0,
  // As operators have it: QEMU's own pre-copy is measured with it, though not to be relied on (rig/qemu.ts).
  plainMemory: true,
} as const satisfies LinuxGuestOptions;

export async function linuxHardware(options: LinuxGuestOptions = {}): Promise<Hardware> {
  const image = await buildGuest();
  const append = [
    'console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check',
    `mem_mb=${options.fillMiB ?? 64} ws_mb=${options.workingSetMiB ?? 8} dirty_mbps=${options.dirtyMBps ?? 4}`,
    `check_mbps=${options.checkMBps ?? 64} text_pct=${options.textPercent ?? 75}`,
    `zero_pct=${options.zeroPercent ?? 0} zero_every=${options.zeroEvery ?? 16}`,
    ...(options.addresses ?? []).map((address) => `net=${address}`),
    ...(options.addresses6 ?? []).map((address) => `net6=${address}`),
    ...(options.silent ? ['silent'] : []),
    ...(options.disk === undefined ? [] : [`disk=${options.disk}`]),
  ].join(' ');
  const boot: Boot = { kind: 'linux', kernel: image.kernel, initrd: image.initrd, append };
  const nics: readonly Nic[] = options.nics ?? [];
  return { ...options, boot, nics, memoryMiB: options.memoryMiB ?? 192 };
}

export interface Tick {
  readonly n: number;
  /** Seconds the guest has run, by its own clock. */
  readonly uptime: number;
  readonly bad: number;
  readonly checked: number;
  readonly passes: number;
  readonly writes: number;
  readonly boot: string;
}

const TICK = /^TICK (\d+) (\d+\.\d+) bad=(\d+) checked=(\d+) passes=(\d+) writes=(\d+) boot=([0-9a-f]{16})$/;

export function parseTick(line: string): Tick | undefined {
  const match = TICK.exec(line);
  if (!match) return undefined;
  const [, n, uptime, bad, checked, passes, writes, boot] = match;
  return {
    n: Number(n),
    uptime: Number(uptime),
    bad: Number(bad),
    checked: Number(checked),
    passes: Number(passes),
    writes: Number(writes),
    boot: boot as string,
  };
}

export interface Ready {
  readonly boot: string;
  readonly pages: number;
  readonly cpus: number;
  readonly uptime: number;
}

export function parseReady(line: string): Ready | undefined {
  const match = /^READY boot=([0-9a-f]{16}) pages=(\d+) cpus=(\d+) uptime=(\S+)$/.exec(line);
  if (!match) return undefined;
  return {
    boot: match[1] as string,
    pages: Number(match[2]),
    cpus: Number(match[3]),
    uptime: Number(match[4]),
  };
}

export interface Checked {
  readonly pages: number;
  /** Bad pages found since the guest booted, this pass included. */
  readonly bad: number;
  /** Sum of all generations, equal to `writes` in a sound guest. */
  readonly generations: number;
  readonly writes: number;
  readonly boot: string;
}

export function parseChecked(line: string, id: string): Checked | undefined {
  const match = /^CHECKED id=(\S+) pages=(\d+) bad=(\d+) gen=(\d+) writes=(\d+) boot=([0-9a-f]{16})$/.exec(
    line,
  );
  if (!match || match[1] !== id) return undefined;
  return {
    pages: Number(match[2]),
    bad: Number(match[3]),
    generations: Number(match[4]),
    writes: Number(match[5]),
    boot: match[6] as string,
  };
}
