/**
 * The sockets at which this host's libvirtd and QEMU find the agent in place of the destination, and what has come to
 * them: libvirt's calls, the disks, and the memory of a post-copy that is being finished. All of it goes to the
 * destination as side connections.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { EventQueue } from '@vmferry/engine/event-queue';
import type { SideConnection } from '@vmferry/engine/guest';
import type { LibvirtOptions } from '../options.ts';
import { Rendezvous } from '../rendezvous.ts';
import { type CallingOptions, CallingRpc } from '../rpc/relay.ts';
import { newRendezvous } from './tokens.ts';

export class SourceConnections {
  /** Of the directory of sockets. */
  readonly rendezvousName = newRendezvous();
  readonly side = new EventQueue<SideConnection>();
  readonly #options: LibvirtOptions;
  readonly #servers: Server[] = [];
  readonly #local = new Set<Socket>();
  readonly #calls = new Set<CallingRpc>();
  readonly #disks = new Set<Socket>();
  #rendezvous: Rendezvous | undefined;

  constructor(options: LibvirtOptions) {
    this.#options = options;
  }

  /** Makes the directory. */
  async open(): Promise<Rendezvous> {
    const rendezvous = await Rendezvous.make(this.#options, this.rendezvousName);
    this.#rendezvous = rendezvous;
    return rendezvous;
  }

  /** Hangs up at once while it is not `wanted`: a libvirt that is answered by nobody would wait for ever. */
  serveCalls(
    rendezvous: Rendezvous,
    how: CallingOptions,
    { wanted, begun }: { readonly wanted: () => boolean; readonly begun: (calls: CallingRpc) => void },
  ): Promise<void> {
    return this.#serve(rendezvous.here('rpc'), (socket) => {
      if (!wanted()) {
        socket.destroy();
        return;
      }
      const calls = new CallingRpc(socket, how);
      this.#calls.add(calls);
      begun(calls);
      this.side.push({ kind: 'rpc', stream: calls.stream });
    });
  }

  serveDisks(rendezvous: Rendezvous, closed: () => void): Promise<void> {
    return this.#serve(rendezvous.here('nbd'), (stream) => {
      this.#disks.add(stream);
      stream.once('close', () => {
        this.#disks.delete(stream);
        closed();
      });
      this.side.push({ kind: 'nbd', stream });
    });
  }

  /** Of a post-copy that is resumed. What is not taken is hung up on. */
  serveMemory(rendezvous: Rendezvous, begun: (memory: Socket) => void): Promise<void> {
    return this.#serve(rendezvous.here('ram'), begun);
  }

  async #serve(path: string, take: (socket: Socket) => void): Promise<void> {
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      this.#local.add(socket);
      socket.once('close', () => this.#local.delete(socket));
      take(socket);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // QEMU may run as another user than the agent; the directory is what keeps others out.
      server.listen({ path, writableAll: true, readableAll: true }, resolve);
    });
  }

  /** libvirt says good-bye to the destination's, which without a tunnel nobody answers. */
  hangUpDetached(): void {
    for (const calls of this.#calls) if (calls.stream.destroyed) calls.hangUp();
  }

  /** On libvirt, which takes it for the end of the destination's. */
  hangUp(): void {
    for (const calls of this.#calls) calls.hangUp();
  }

  /** libvirt gets the answer that was held back. */
  letGo(): void {
    for (const calls of this.#calls) calls.letGo();
  }

  cutDisks(): void {
    for (const disk of this.#disks) disk.destroy();
  }

  close(): void {
    this.side.end();
    for (const server of this.#servers.splice(0)) server.close();
    this.hangUp();
    for (const socket of this.#local) socket.destroy();
  }

  async removeDirectory(): Promise<void> {
    await this.#rendezvous?.remove();
  }
}
