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
  leavingPaused,
  pong,
  type RpcMessage,
  RpcProcedure,
  RpcProgram,
  RpcReader,
  RpcType,
  textParameters,
} from './messages.ts';

interface RelayHooks {
  /** What libvirtd says. */
  readonly onDaemon?: (message: RpcMessage) => void;
  /** What the tunnel brings, and what libvirtd gets of it, if anything. */
  readonly onTunnel?: (message: RpcMessage) => RpcMessage | undefined;
}

class Relay {
  /** For the tunnel. */
  readonly stream: Duplex;
  /** libvirtd has hung up, or was hung up on. */
  readonly ended: Promise<void>;
  /** The tunnel is gone. */
  readonly detached: Promise<void>;
  readonly #daemon: Socket;

  constructor(daemon: Socket, { onDaemon = () => {}, onTunnel = (message) => message }: RelayHooks) {
    this.#daemon = daemon;
    const said = new RpcReader();
    const brought = new RpcReader();
    const stream = new Duplex({
      read: () => void daemon.resume(),
      write: (chunk: Buffer, _encoding, done) => {
        try {
          for (const message of brought.push(chunk)) {
            const passes = onTunnel(message);
            if (passes) daemon.write(passes.bytes);
          }
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
          onDaemon(message);
          if (stream.destroyed) {
            // Nobody is there to answer: libvirtd must not take that for the end.
            if (isPing(message)) daemon.write(pong());
          } else if (!stream.push(message.bytes)) daemon.pause();
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

export interface CallingOptions {
  readonly holdAnswer: boolean;
  /** What is to be done once the destination is prepared, before libvirtd hears of it. Where it fails, it is hung up on. */
  readonly prepared?: () => Promise<boolean>;
}

/**
 * The source's libvirtd, which calls. The good answer to its call to finish makes it end the guest: it waits until
 * `letGo`. From then on that libvirtd can be told whatever becomes of the tunnel.
 */
export class CallingRpc extends Relay {
  /** The good answer is here. */
  readonly held: Promise<void>;
  readonly #state: CallingState;

  constructor(daemon: Socket, { holdAnswer, prepared }: CallingOptions) {
    const state = new CallingState(holdAnswer);
    super(daemon, {
      onDaemon: (message) => state.onCall(message),
      onTunnel: (message) => {
        if (!prepared || !state.isPrepared(message)) return state.pass(message);
        void prepared().then((goesOn) => (goesOn ? this.tell(message.bytes) : this.hangUp()));
        return undefined;
      },
    });
    this.#state = state;
    this.held = state.hasAnswer;
  }

  /** The good answer is here, and libvirtd has not been given it. */
  get holds(): boolean {
    return this.#state.holds;
  }

  letGo(): void {
    for (const message of this.#state.letGo()) this.tell(message.bytes);
  }
}

class CallingState {
  readonly hasAnswer: Promise<void>;
  #resolveHasAnswer: () => void = () => {};
  #hold: boolean;
  #serial: number | undefined;
  #prepareSerial: number | undefined;
  readonly #held: RpcMessage[] = [];

  constructor(hold: boolean) {
    this.#hold = hold;
    this.hasAnswer = new Promise((resolve) => {
      this.#resolveHasAnswer = resolve;
    });
  }

  get holds(): boolean {
    return this.#held.length > 0;
  }

  onCall(message: RpcMessage): void {
    if (isFinish(message) && !isCancelled(message)) this.#serial = message.serial;
    if (isPrepare(message)) this.#prepareSerial = message.serial;
  }

  /** The good answer to the call to prepare. */
  isPrepared(message: RpcMessage): boolean {
    return message.ok && isAnswer(message, this.#prepareSerial);
  }

  pass(message: RpcMessage): RpcMessage | undefined {
    if (!this.#hold || !message.ok || !isAnswer(message, this.#serial)) return message;
    this.#held.push(message);
    this.#resolveHasAnswer();
    return undefined;
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
  /** Whether libvirtd has finished the migration well, once it has answered or can never be asked. Never rejects. */
  readonly finished: Promise<boolean>;
  readonly #state: CalledState;

  /** `mayPrepare` throws for a domain that must not come in, told by the parameters of the call. */
  constructor(daemon: Socket, mayPrepare: (parameters: ReadonlyMap<string, string>) => void) {
    const state = new CalledState(mayPrepare);
    super(daemon, {
      onTunnel: (message) => state.pass(message),
      onDaemon: (message) => state.onAnswer(message),
    });
    this.#state = state;
    const neverAsked = this.detached.then(() => (state.asked ? state.answered : false));
    this.finished = Promise.race([state.answered, this.ended.then(() => false), neverAsked]);
  }

  /** The source's libvirt has called to finish. */
  get asked(): boolean {
    return this.#state.asked;
  }

  /** `paused`: libvirt is not to run the guest when it has finished, whatever the source's asks for. */
  release(how: { readonly paused: boolean }): void {
    for (const message of this.#state.release(how)) this.tell(message.bytes);
  }
}

class CalledState {
  /** Whether it was finished well. */
  readonly answered: Promise<boolean>;
  #answer: (ok: boolean) => void = () => {};
  #released: { readonly paused: boolean } | undefined;
  readonly #held: RpcMessage[] = [];
  #serial: number | undefined;
  readonly #mayPrepare: (parameters: ReadonlyMap<string, string>) => void;

  constructor(mayPrepare: (parameters: ReadonlyMap<string, string>) => void) {
    this.#mayPrepare = mayPrepare;
    this.answered = new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  /** The call to finish has come. */
  get asked(): boolean {
    return this.#serial !== undefined;
  }

  pass(message: RpcMessage): RpcMessage | undefined {
    refuseOthers(message);
    if (isPrepare(message)) this.#mayPrepare(textParameters(message));
    if (!isFinish(message) || isCancelled(message)) return message;
    this.#serial = message.serial;
    if (this.#released) return this.#released.paused ? leavingPaused(message) : message;
    this.#held.push(message);
    return undefined;
  }

  onAnswer(message: RpcMessage): void {
    if (isAnswer(message, this.#serial)) this.#answer(message.ok);
  }

  release(how: { readonly paused: boolean }): readonly RpcMessage[] {
    this.#released = how;
    const held = this.#held.splice(0);
    return how.paused ? held.map(leavingPaused) : held;
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
