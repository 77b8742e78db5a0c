/**
 * A connection between a libvirtd and the tunnel to the other one, message by message.
 *
 *     libvirtd ◀── its own socket ──▶ relay ◀── `stream` ──▶ tunnel
 *
 * The two ends live on their own: a tunnel that breaks does not hang up on libvirtd. To be hung up on means something
 * to it: the source's takes its guest back, whatever the destination has been told, and the destination's ends the
 * guest that was coming in. When that is right, the guest's driver says so (`hangUp`).
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { GuestError } from '@vmferry/engine/errors';
import {
  isCancelled,
  isFinish,
  isPing,
  isPrepare,
  pong,
  type RpcMessage,
  RpcProcedure,
  RpcProgram,
  RpcReader,
  RpcType,
  textParameters,
} from './rpc-messages.ts';

interface RelayHooks {
  /** What libvirtd says; false keeps it from the tunnel. */
  readonly onDaemon?: (message: RpcMessage) => boolean;
  /** What the tunnel brings; false keeps it from libvirtd. */
  readonly onTunnel?: (message: RpcMessage) => boolean;
}

class Relay {
  /** For the tunnel. */
  readonly stream: Duplex;
  /** libvirtd has hung up, or was hung up on. */
  readonly ended: Promise<void>;
  /** The tunnel is gone. */
  readonly detached: Promise<void>;
  readonly #daemon: Socket;

  constructor(daemon: Socket, { onDaemon = () => true, onTunnel = () => true }: RelayHooks) {
    this.#daemon = daemon;
    const said = new RpcReader();
    const brought = new RpcReader();
    const stream = new Duplex({
      read: () => void daemon.resume(),
      write: (chunk: Buffer, _encoding, done) => {
        try {
          for (const message of brought.push(chunk)) if (onTunnel(message)) daemon.write(message.bytes);
          if (daemon.writableNeedDrain) daemon.once('drain', () => done());
          else done();
        } catch (error) {
          done(error as Error);
        }
      },
      final: (done) => done(),
      destroy: (error, done) => {
        // What libvirtd still says is read, so that it is not left waiting, and answered here.
        daemon.resume();
        done(error);
      },
    });
    stream.on('error', () => {});
    daemon.on('error', () => {});
    daemon.on('data', (chunk: Buffer) => {
      try {
        for (const message of said.push(chunk)) {
          if (stream.destroyed) {
            // Nobody is there to answer: libvirtd must not take that for the end.
            if (isPing(message)) daemon.write(pong());
          } else if (onDaemon(message) && !stream.push(message.bytes)) daemon.pause();
        }
      } catch (error) {
        stream.destroy(error as Error);
        daemon.destroy();
      }
    });
    this.ended = new Promise((resolve) => {
      daemon.once('close', () => {
        if (!stream.destroyed) stream.push(null);
        resolve();
      });
    });
    this.detached = new Promise((resolve) => {
      stream.once('close', resolve);
    });
    this.stream = stream;
  }

  /** A message of ours, between two of the tunnel's. */
  protected tell(bytes: Uint8Array): void {
    if (!this.#daemon.destroyed) this.#daemon.write(bytes);
  }

  hangUp(): void {
    this.#daemon.destroy();
  }
}

/**
 * The source's libvirtd, which calls. Where the destination's has finished with the guest paused, its good answer makes
 * the source end the guest: it waits until `letGo`.
 */
export class CallingRpc extends Relay {
  readonly #state: CallingState;

  constructor(daemon: Socket, { holdAnswer }: { readonly holdAnswer: boolean }) {
    const state = new CallingState(holdAnswer);
    super(daemon, {
      onDaemon: (message) => state.onCall(message),
      onTunnel: (message) => state.mayPass(message),
    });
    this.#state = state;
  }

  letGo(): void {
    for (const message of this.#state.letGo()) this.tell(message.bytes);
  }
}

class CallingState {
  #hold: boolean;
  #serial: number | undefined;
  readonly #held: RpcMessage[] = [];

  constructor(hold: boolean) {
    this.#hold = hold;
  }

  onCall(message: RpcMessage): boolean {
    if (isFinish(message) && !isCancelled(message)) this.#serial = message.serial;
    return true;
  }

  mayPass(message: RpcMessage): boolean {
    if (!this.#hold || !message.ok || !isAnswer(message, this.#serial)) return true;
    this.#held.push(message);
    return false;
  }

  letGo(): readonly RpcMessage[] {
    this.#hold = false;
    return this.#held.splice(0);
  }
}

/** All that a peer-to-peer migration calls. Whoever asks for more is no libvirtd that migrates. */
const ALLOWED: ReadonlySet<number> = new Set(Object.values(RpcProcedure));

/**
 * The destination's libvirtd, which is called. The call that would let the guest run here (or take it as moved) waits
 * until `release`; that the source has given up is told at once.
 */
export class CalledRpc extends Relay {
  /** Whether libvirtd has finished the migration well, once it has answered. Never rejects. */
  readonly finished: Promise<boolean>;
  readonly #state: CalledState;

  /** `mayPrepare` throws for a domain that must not come in, told by the parameters of the call. */
  constructor(daemon: Socket, mayPrepare: (parameters: ReadonlyMap<string, string>) => void) {
    const state = new CalledState(mayPrepare);
    super(daemon, {
      onTunnel: (message) => state.mayPass(message),
      onDaemon: (message) => state.onAnswer(message),
    });
    this.#state = state;
    this.finished = Promise.race([state.answered, this.ended.then(() => false)]);
  }

  release(): void {
    for (const message of this.#state.release()) this.tell(message.bytes);
  }
}

class CalledState {
  readonly answered: Promise<boolean>;
  #answer: (ok: boolean) => void = () => {};
  #released = false;
  readonly #held: RpcMessage[] = [];
  #serial: number | undefined;
  readonly #mayPrepare: (parameters: ReadonlyMap<string, string>) => void;

  constructor(mayPrepare: (parameters: ReadonlyMap<string, string>) => void) {
    this.#mayPrepare = mayPrepare;
    this.answered = new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  mayPass(message: RpcMessage): boolean {
    refuseOthers(message);
    if (isPrepare(message)) this.#mayPrepare(textParameters(message));
    if (!isFinish(message) || isCancelled(message)) return true;
    this.#serial = message.serial;
    if (!this.#released) this.#held.push(message);
    return this.#released;
  }

  onAnswer(message: RpcMessage): boolean {
    if (isAnswer(message, this.#serial)) this.#answer(message.ok);
    return true;
  }

  release(): readonly RpcMessage[] {
    this.#released = true;
    return this.#held.splice(0);
  }
}

function isAnswer({ program, type, serial }: RpcMessage, to: number | undefined): boolean {
  return program === RpcProgram.remote && type === RpcType.reply && serial === to;
}

function refuseOthers({ program, procedure, type }: RpcMessage): void {
  if (program === RpcProgram.keepAlive) return;
  if (program === RpcProgram.remote && type === RpcType.call && ALLOWED.has(procedure)) return;
  throw new GuestError(
    'E_PROTOCOL',
    `the source's libvirt asked for procedure ${procedure} of program 0x${program.toString(16)}, which no migration needs`,
    'report this with the versions of both libvirts',
  );
}
