import {
  type Checked,
  type LinuxGuestOptions,
  linuxHardware,
  parseChecked,
  parseReady,
  parseTick,
  type Ready,
  type Tick,
} from '../guest/linux.ts';
import { QemuProcess } from './qemu.ts';
import type { Serial } from './serial.ts';
import type { HostName } from './versions.ts';

export interface Placement {
  readonly name: string;
  readonly namespace?: string;
  /** See QemuOptions. */
  readonly host?: HostName;
}

let checks = 0;

/** The Linux test guest behind one serial port. */
export class SerialGuest {
  readonly serial: Serial;

  constructor(serial: Serial) {
    this.serial = serial;
  }

  async ready(timeoutMs = 60_000): Promise<Ready> {
    const line = await this.serial.waitForLine((text) => parseReady(text) !== undefined, { timeoutMs });
    return parseReady(line.text) as Ready;
  }

  /** The next tick that this QEMU's serial port brings: the guest runs here. */
  async nextTick(timeoutMs = 30_000): Promise<Tick> {
    const { serial } = this;
    const line = await serial.waitForLine((text) => parseTick(text) !== undefined, {
      timeoutMs,
      from: serial.lines.length,
    });
    return parseTick(line.text) as Tick;
  }

  /** A full pass over all pages with the writers held. The guest must run here. */
  async check(timeoutMs = 60_000): Promise<Checked> {
    const { serial } = this;
    const id = `${process.pid}-${++checks}`;
    const from = serial.lines.length;
    serial.writeLine(`CHECK ${id}`);
    const matches = (text: string) => parseChecked(text, id) !== undefined;
    return parseChecked((await serial.waitForLine(matches, { timeoutMs, from })).text, id) as Checked;
  }

  /** Sets the write rate (10^6 bytes/s) and the working set (MiB) from now on. */
  async setLoad(dirtyMBps: number, workingSetMiB: number): Promise<void> {
    const { serial } = this;
    const from = serial.lines.length;
    serial.writeLine(`DIRTY ${dirtyMBps} ${workingSetMiB}`);
    await serial.waitForLine((text) => text.startsWith(`DIRTY ${dirtyMBps} `), { from });
  }
}

/** The Linux test guest in one QEMU. */
export class GuestProcess extends SerialGuest {
  readonly qemu: QemuProcess;
  readonly options: LinuxGuestOptions;

  private constructor(qemu: QemuProcess, options: LinuxGuestOptions) {
    super(qemu.serial);
    this.qemu = qemu;
    this.options = options;
  }

  /** Boots it and waits for READY. */
  static async boot(options: LinuxGuestOptions, placement: Placement): Promise<GuestProcess> {
    const hardware = await linuxHardware(options);
    const qemu = await QemuProcess.start({ ...hardware, ...placement, role: 'run' });
    const guest = new GuestProcess(qemu, options);
    try {
      await guest.ready();
    } catch (error) {
      await qemu.stop();
      throw error;
    }
    return guest;
  }

  /** A destination for a guest with the same options; stays paused when loaded unless `autostart`. */
  static async incoming(
    options: LinuxGuestOptions,
    placement: Placement & { readonly autostart?: boolean },
  ): Promise<GuestProcess> {
    const hardware = await linuxHardware(options);
    return new GuestProcess(
      await QemuProcess.start({ ...hardware, ...placement, role: 'incoming' }),
      options,
    );
  }

  stop(): Promise<unknown> {
    return this.qemu.stop();
  }
}

export class GuestDamagedError extends Error {
  readonly code = 'TEST_GUEST_DAMAGED';
}

export interface History {
  readonly boot: string;
  readonly pages: number;
  readonly ticks: readonly Tick[];
  readonly checked: Checked;
}

/**
 * Holds a guest against all that must be true of it after it moved through these QEMUs, in order: it booted
 * once, every page is good (a full pass where it runs now), no tick is missing or doubled, and it had seen
 * no bad page on the way. Throws GuestDamagedError with all that is wrong.
 */
export async function verifyHistory(places: readonly SerialGuest[]): Promise<History> {
  const last = places.at(-1);
  if (!last) throw new GuestDamagedError('no QEMU given');
  const checked = await last.check();
  const tick = await last.nextTick();
  // The line in which it moved is half here and half there: only the joined text is whole.
  const lines = places
    .map((place) => place.serial.text)
    .join('')
    .split('\n')
    .map((line) => line.replace(/\r$/, ''));
  const ready = lines.flatMap((line) => parseReady(line) ?? []);
  const ticks = lines.flatMap((line) => parseTick(line) ?? []);
  const wrong = lines.filter((line) => /^(BAD|FATAL) |Kernel panic/.test(line));
  const boot = ready[0]?.boot;
  if (ready.length !== 1 || boot === undefined) wrong.push(`booted ${ready.length} times`);
  if (checked.boot !== boot) wrong.push(`boot id ${checked.boot}, was ${boot}`);
  if (checked.bad !== 0) wrong.push(`${checked.bad} bad pages`);
  if (checked.pages !== ready[0]?.pages) wrong.push(`${checked.pages} pages, were ${ready[0]?.pages}`);
  if (checked.generations !== checked.writes) {
    wrong.push(`${checked.writes} writes, but the pages' generations say ${checked.generations}`);
  }
  ticks.forEach((t, i) => {
    if (t.n !== i) wrong.push(`tick ${i} is missing: found ${t.n}`);
    if (i > 0 && t.uptime < (ticks[i - 1] as Tick).uptime) wrong.push(`time went back at tick ${t.n}`);
  });
  if (!ticks.some((t) => t.n === tick.n)) wrong.push(`tick ${tick.n} is missing`);
  if (wrong.length > 0 || boot === undefined) {
    throw new GuestDamagedError(
      `the guest is damaged:\n${wrong.slice(0, 20).join('\n')}\n${last.serial.tail()}`,
    );
  }
  return { boot, pages: checked.pages, ticks, checked };
}
