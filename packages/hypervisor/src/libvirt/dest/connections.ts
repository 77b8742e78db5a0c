/**
 * What the agent connects to in place of the source: this host's libvirtd, for the calls of the source's, and its QEMU's
 * sockets in the migration's directory.
 *
 *     closed ── open ──▶ open ── libvirt's calls come ──▶ called ── finish ──▶ libvirt takes the guest for moved
 *                         └──────────────── refuse ─────────┴──▶ over: nothing is taken in any more
 */
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { GuestError } from '@vmferry/engine/errors';
import type { SideKind } from '@vmferry/engine/guest';
import { identityOf } from '../domain-xml.ts';
import { daemonSockets, type LibvirtOptions } from '../options.ts';
import { Rendezvous } from '../rendezvous.ts';
import { CalledRpc } from '../rpc/relay.ts';
import type { DestDomain } from './domain.ts';
import { neverAsked, nobodyThere, notFinished, notTakenIn, otherDomain } from './faults.ts';

export class DestConnections {
  readonly #domain: DestDomain;
  readonly #options: LibvirtOptions;
  readonly #tell: (error: GuestError) => void;
  readonly #local = new Set<Socket>();
  #rendezvous: Rendezvous | undefined;
  #calls: CalledRpc | undefined;
  #finishesAtOnce = false;
  #over = false;

  /** @param tell of a source that wants something else than was let in */
  constructor(domain: DestDomain, options: LibvirtOptions, tell: (error: GuestError) => void) {
    this.#domain = domain;
    this.#options = options;
    this.#tell = tell;
  }

  /** libvirt's, once the source's has connected. */
  get calls(): CalledRpc | undefined {
    return this.#calls;
  }

  /** Makes the directory. `finishesAtOnce`: of a halted post-copy libvirt's call to finish waits for nothing. */
  async open(name: string, { finishesAtOnce }: { readonly finishesAtOnce: boolean }): Promise<void> {
    this.#finishesAtOnce = finishesAtOnce;
    this.#rendezvous = await Rendezvous.make(this.#options, name);
  }

  get memoryPath(): string {
    return this.#rendezvous!.here('ram');
  }

  async connectSide(kind: SideKind): Promise<Duplex> {
    if (!this.#rendezvous) throw new Error('the destination guest was not opened');
    const path = this.#rendezvous.here(kind);
    if (kind === 'ram' && this.#finishesAtOnce) return connectedWhenWritten(path, (made) => this.#keep(made));
    if (kind !== 'rpc') return this.#keep(await connectLocal(path));
    const daemon = this.#keep(await this.#connectDaemon());
    // Nobody would hang up on it any more, and libvirt would keep what comes in by it for ever.
    if (this.#over) {
      daemon.destroy();
      throw notTakenIn(this.#domain.name);
    }
    // One that comes anew stands for the one before.
    this.#calls?.hangUp();
    this.#calls = new CalledRpc(daemon, (parameters) => this.#mayPrepare(parameters));
    if (this.#finishesAtOnce) this.#calls.release({ paused: false });
    return this.#calls.stream;
  }

  /** libvirt makes what the source's tells it to: that has to be the domain that was let in, where it was to be. */
  #mayPrepare(parameters: ReadonlyMap<string, string>): void {
    const xml = parameters.get('destination_xml') ?? '';
    const { name, uuid } = identityOf(xml);
    const expected = this.#rendezvous!;
    const whole =
      (parameters.get('destination_name') ?? name) === this.#domain.name &&
      uuid === this.#domain.uuid &&
      parameters.get('migrate_uri') === `unix://${expected.there('ram')}` &&
      (parameters.get('disks_uri') ?? `unix://${expected.there('nbd')}`) ===
        `unix://${expected.there('nbd')}`;
    if (whole) return;
    const error = otherDomain(name, uuid);
    this.#tell(error);
    throw error;
  }

  async #connectDaemon(): Promise<Socket> {
    let why: unknown;
    for (const path of daemonSockets(this.#options.uri)) {
      try {
        return await connectLocal(path);
      } catch (error) {
        why = error;
      }
    }
    throw why;
  }

  #keep(socket: Socket): Socket {
    this.#local.add(socket);
    socket.once('close', () => this.#local.delete(socket));
    return socket;
  }

  /** libvirt takes the guest for moved, and runs it unless it is to be left `paused`. */
  async finish(how: { readonly paused: boolean }): Promise<void> {
    const calls = this.#calls;
    if (!calls) throw notFinished("the source's libvirt is not connected");
    calls.release(how);
    if (await calls.finished) return;
    throw calls.asked
      ? notFinished('libvirt refused to finish the migration')
      : neverAsked(this.#domain.name);
  }

  /** Nothing is taken in any more. */
  refuse(): void {
    this.#over = true;
  }

  /** libvirt ends what is coming in. */
  hangUp(): void {
    this.#calls?.hangUp();
  }

  close(): void {
    this.refuse();
    this.hangUp();
    for (const socket of this.#local) socket.destroy();
  }

  async removeDirectory(): Promise<void> {
    await this.#rendezvous?.remove();
  }
}

/**
 * A connection that is made with the first bytes, which come all at once: a QEMU before 8.2 that is connected to, and then
 * hears nothing, ends.
 */
function connectedWhenWritten(path: string, made: (socket: Socket) => Socket): Duplex {
  let socket: Socket | undefined;
  const stream = new Duplex({
    read: () => void socket?.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      socket ??= begin();
      socket.write(chunk, done);
    },
    final: (done) => {
      socket?.end();
      done();
    },
    destroy: (error, done) => {
      socket?.destroy();
      done(error);
    },
  });
  const begin = (): Socket => {
    const socket = made(connect({ path }));
    socket.on('data', (chunk: Buffer) => {
      if (!stream.push(chunk)) socket.pause();
    });
    socket.on('error', (cause) => stream.destroy(nobodyThere(path, cause)));
    socket.once('close', () => {
      if (!stream.destroyed) stream.push(null);
    });
    return socket;
  };
  return stream;
}

function connectLocal(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path }, () => {
      socket.off('error', reject);
      resolve(socket);
    });
    socket.pause();
    socket.once('error', reject);
  }).catch((cause: unknown) => {
    throw nobodyThere(path, cause);
  }) as Promise<Socket>;
}
