/**
 * What a session has beside its control stream: data and express streams, each in its place, and connections of the
 * hypervisors' own that are carried verbatim.
 */
import type { Duplex } from 'node:stream';
import type { Logger } from '@vmferry/agent-core/log';
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import { WireError } from '@vmferry/wire/errors';
import type { Link } from '@vmferry/wire/link';
import { Tunnel } from '@vmferry/wire/tunnel';
import { failureOf } from './failures.ts';

/** Connections of the hypervisors' own at a time: libvirt's, and one for each disk. */
const MAX_TUNNELS = 64;

export class Streams {
  readonly #log: Logger;
  readonly #links: Link[] = [];
  readonly #tunnels = new Map<Link, Tunnel>();
  /** The ends of connections for the guest's memory that are carried verbatim. */
  readonly #memoryCarried: Promise<unknown>[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Data and express streams. */
  get count(): number {
    return this.#links.length;
  }

  get receivedBytes(): number {
    const links = [...this.#links, ...this.#tunnels.keys()];
    return links.reduce((sum, link) => sum + link.stats.bytesReceived, 0);
  }

  /** False where the place is taken. */
  put(link: Link, place: number): boolean {
    if (this.#links[place]) return false;
    this.#links[place] = link;
    return true;
  }

  /** -1 for a link that has none. */
  placeOf(link: Link): number {
    return this.#links.indexOf(link);
  }

  tunnelOf(link: Link): Tunnel | undefined {
    return this.#tunnels.get(link);
  }

  /**
   * Carries a connection whose other end `connect` finds on this host; `attached` says that it is there. Resolves when it
   * is over, however it ended.
   */
  async carry(link: Link, role: string, connect: () => Promise<Duplex>, attached: () => void): Promise<void> {
    try {
      if (this.#tunnels.size >= MAX_TUNNELS) throw new PayloadError('there are too many connections at once');
      const local = await connect();
      if (link.state !== 'open') {
        local.destroy();
        return;
      }
      attached();
      const tunnel = new Tunnel(link, local);
      this.#tunnels.set(link, tunnel);
      if (role === 'ram') this.#memoryCarried.push(tunnel.ended);
      await tunnel.ended;
    } catch (error) {
      this.#log.warn({ err: error, role }, 'tunnel');
      link.drop(new WireError('E_CLOSED', failureOf(error).why));
    } finally {
      this.#tunnels.delete(link);
    }
  }

  /** Resolves when the guest's memory that is carried verbatim has come to its end, as far as it is being carried now. */
  async memoryCarried(): Promise<void> {
    await Promise.all(this.#memoryCarried);
  }
}
