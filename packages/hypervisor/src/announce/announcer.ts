/**
 * Tells the network where a guest is now: sends each target's frames at once and again in every round of
 * the schedule.
 *
 *     prepare(targets)*  ──▶  announce(targets) ─▶ round 1 (before it returns) ─ wait ─▶ … ─▶ last round ─▶ done
 *                                    └── stop() at any time, or no target is here any more ──────────────▶ done
 *
 * A guest may leave again before the last round. A round that then still said that it is here would draw its traffic
 * back, so each asks first whether the NIC's end on this host is there.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { messageOf } from '@vmferry/engine/errors';
import type { GuestIp, GuestMac } from '@vmferry/engine/guest-address';
import type { Millis } from '@vmferry/engine/units';
import {
  gratuitousArpReply,
  gratuitousArpRequest,
  rarpAnnouncement,
  unsolicitedNeighbourAdvertisement,
  withVlanTag,
} from './frames.ts';
import type { FdbEntry } from './interfaces.ts';

/** A raw socket bound to one interface. Both methods are synchronous; `send` throws on failure. */
export interface AnnounceSocket {
  send(frame: Uint8Array): void;
  close(): void;
}

/** One NIC of the guest and the place to announce it from. */
export interface AnnounceTarget {
  readonly mac: GuestMac;
  /** With none the MAC alone is announced, by RARP. */
  readonly addresses: readonly GuestIp[];
  /** Those of `addresses` (as text) that are a router's. */
  readonly routers?: ReadonlySet<string>;
  /** The host's interface that frames are sent on. */
  readonly interface: string;
  readonly vlan?: number;
  /** The local forwarding table's entry to refresh right after the first round. */
  readonly fdb?: FdbEntry;
  /** The NIC's end on this host, a tap or a macvtap. */
  readonly port?: string;
}

export interface AnnounceSummary {
  readonly frames: number;
  /** Those that at least one frame was sent on. */
  readonly interfaces: readonly string[];
  /** What did not work, for the operator. */
  readonly notes: readonly string[];
}

export interface Announcement {
  /** The first round has been sent, as far as it could be; never rejects. */
  readonly firstRound: Promise<void>;
  /** No further round follows. */
  readonly over: boolean;
  /** What was sent until now. */
  soFar(): AnnounceSummary;
  /** All rounds have been sent, no target is here any more, or `stop` was called; never rejects. */
  readonly done: Promise<AnnounceSummary>;
  /** No further round is sent, and sockets are closed. */
  stop(): void;
}

export interface AnnouncerOptions {
  readonly openSocket: (interfaceName: string) => AnnounceSocket;
  /** The wait before each round (`roundDelays`); the first round is sent at once whatever its wait is. */
  readonly delays: readonly Millis[];
  /** Gives a note when it could not be done (`refreshFdb`); must not reject. */
  readonly refreshFdb: (mac: GuestMac, entry: FdbEntry) => Promise<string | undefined>;
  /** Whether a guest still holds this port (`portIsHeld`). Without it none is asked about. */
  readonly portIsHeld?: (port: string) => boolean;
  /** Calls `fire` once after `wait`, unless the returned function was called. Node's timers unless told. */
  readonly setTimer?: (fire: () => void, wait: Millis) => () => void;
  readonly log?: (message: string) => void;
}

/** What fails on one interface becomes a note and stops no other. */
export class Announcer {
  readonly #options: AnnouncerOptions;
  /** Opened ahead of the cutover and not yet taken by an announcement. */
  readonly #prepared = new Map<string, AnnounceSocket>();

  constructor(options: AnnouncerOptions) {
    this.#options = options;
  }

  /**
   * Opens the targets' sockets ahead of time. One that cannot be opened yet is tried again when the
   * announcement starts.
   */
  prepare(targets: readonly AnnounceTarget[]): void {
    for (const { interface: name } of targets) {
      if (this.#prepared.has(name)) continue;
      try {
        this.#prepared.set(name, this.#options.openSocket(name));
      } catch (error) {
        this.#options.log?.(`announce: ${name} cannot be opened yet: ${messageOf(error)}`);
      }
    }
  }

  /** The first round's frames have been handed to the kernel when this returns. */
  announce(targets: readonly AnnounceTarget[]): Announcement {
    const links = new Map<string, Link>();
    for (const { interface: name } of targets) {
      if (links.has(name)) continue;
      links.set(name, new Link(name, this.#options, this.#prepared.get(name)));
      this.#prepared.delete(name);
    }
    return new Rounds(this.#options, targets, links);
  }

  /** Closes what was prepared and not used. Announcements under way are not touched. */
  close(): void {
    for (const socket of this.#prepared.values()) socket.close();
    this.#prepared.clear();
  }
}

/** One announcement's rounds. */
class Rounds implements Announcement {
  readonly firstRound: Promise<void>;
  readonly done: Promise<AnnounceSummary>;
  readonly #options: AnnouncerOptions;
  readonly #links: ReadonlyMap<string, Link>;
  #frames: readonly { readonly link: Link; readonly frames: readonly Uint8Array[]; readonly port?: string }[];
  readonly #finish: () => void;
  #sent = 0;
  #cancelTimer: (() => void) | undefined;
  #over = false;

  constructor(
    options: AnnouncerOptions,
    targets: readonly AnnounceTarget[],
    links: ReadonlyMap<string, Link>,
  ) {
    this.#options = options;
    this.#links = links;
    this.#frames = targets.map((target) => ({
      link: links.get(target.interface)!,
      frames: announcementFrames(target),
      ...(target.port === undefined ? {} : { port: target.port }),
    }));
    this.#round();
    this.firstRound = Promise.resolve();

    let finish = () => {};
    const rounds = new Promise<void>((resolve) => {
      finish = resolve;
    });
    this.#finish = finish;
    const refreshed = this.#refresh(targets);
    this.done = rounds.then(async () => {
      const refreshNotes = await refreshed;
      const { notes, ...sent } = this.soFar();
      return { ...sent, notes: [...notes, ...refreshNotes] };
    });
    this.#wait();
  }

  get over(): boolean {
    return this.#over;
  }

  soFar(): AnnounceSummary {
    const links = [...this.#links.values()];
    return {
      frames: links.reduce((sum, link) => sum + link.sent, 0),
      interfaces: links.filter((link) => link.sent > 0).map((link) => link.name),
      notes: links.flatMap((link) => link.notes(this.#sent)),
    };
  }

  stop(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelTimer?.();
    for (const link of this.#links.values()) link.close();
    this.#finish();
  }

  /**
   * Starting a tool holds up the event loop for milliseconds, so it waits until the caller has gone on, and
   * one tool is started after the other.
   */
  async #refresh(targets: readonly AnnounceTarget[]): Promise<readonly string[]> {
    const notes: string[] = [];
    for (const { mac, fdb } of targets) {
      if (fdb === undefined) continue;
      await nextTurn();
      const note = await this.#options.refreshFdb(mac, fdb);
      if (note !== undefined) notes.push(note);
    }
    return notes;
  }

  #round(): void {
    const failed = new Set<Link>();
    for (const { link, frames } of this.#frames) {
      if (!failed.has(link) && !link.send(frames)) failed.add(link);
    }
    this.#sent++;
  }

  #leaveOutWhatLeft(): void {
    const { portIsHeld = () => true } = this.#options;
    this.#frames = this.#frames.filter(({ port }) => port === undefined || portIsHeld(port));
  }

  #wait(): void {
    const wait = this.#options.delays[this.#sent];
    if (wait === undefined || this.#frames.length === 0) {
      this.stop();
      return;
    }
    this.#cancelTimer = (this.#options.setTimer ?? nodeTimer)(() => {
      this.#leaveOutWhatLeft();
      if (this.#frames.length > 0) this.#round();
      this.#wait();
    }, wait);
  }
}

/** The socket of one interface. After a failure the next round opens it anew: the interface may be back. */
class Link {
  sent = 0;
  #failedRounds = 0;
  #lastFailure = '';
  #socket: AnnounceSocket | undefined;

  constructor(
    readonly name: string,
    private readonly options: AnnouncerOptions,
    socket: AnnounceSocket | undefined,
  ) {
    this.#socket = socket;
  }

  /** False after a failure; the frames behind the failed one are left to the next round. */
  send(frames: readonly Uint8Array[]): boolean {
    try {
      this.#socket ??= this.options.openSocket(this.name);
      for (const frame of frames) {
        this.#socket.send(frame);
        this.sent++;
      }
      return true;
    } catch (error) {
      this.#failedRounds++;
      this.#lastFailure = messageOf(error);
      this.options.log?.(`announce: ${this.name}: ${this.#lastFailure}`);
      this.close();
      return false;
    }
  }

  notes(rounds: number): string[] {
    if (this.#failedRounds === 0) return [];
    return [
      `The announcement on ${this.name} failed in ${this.#failedRounds} of ${rounds} rounds: ${this.#lastFailure}`,
    ];
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    try {
      socket?.close();
    } catch (error) {
      this.options.log?.(`announce: ${this.name} did not close: ${messageOf(error)}`);
    }
  }
}

/** What one round sends for a target, in order. */
export function announcementFrames(target: AnnounceTarget): readonly Uint8Array[] {
  const { mac, addresses, routers, vlan } = target;
  const frames =
    addresses.length === 0
      ? [rarpAnnouncement(mac)]
      : addresses.flatMap((ip) => {
          return ip.family === 4
            ? [gratuitousArpRequest(mac, ip), gratuitousArpReply(mac, ip)]
            : [unsolicitedNeighbourAdvertisement(mac, ip, { router: routers?.has(ip.text) ?? false })];
        });
  return vlan === undefined ? frames : frames.map((frame) => withVlanTag(frame, vlan));
}

function nodeTimer(fire: () => void, wait: Millis): () => void {
  const timer = setTimeout(fire, wait);
  return () => clearTimeout(timer);
}
