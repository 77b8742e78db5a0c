/**
 * A post-copy that is resumed, between the source's QEMU and the way to the destination's.
 *
 *     idle ── ask ──▶ asked ── which pages are there, resume-ack ──▶ goes on there ── join ──▶ answered here ──▶ verbatim
 *
 * QEMU before 8.2 survives no break of the stream while it resumes: the destination's crashes, the source's waits for ever.
 * So the destination's is asked all at once, before the source's QEMU begins, which then is answered from here without any
 * link. Only then its bytes go on as they are.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { StreamError } from './stream/error.ts';
import { Command, RecordType } from './stream/format.ts';
import { ReturnPathDecoder, ReturnPathEncoder } from './stream/return-path.ts';

/** Type, command and length. */
const COMMAND_BYTES = 5;
/** A QEMU that lives says all that it asks in fractions of that. */
const ANSWERED_MS = 5000;
/** Bitmaps of 8 TiB. */
const HELD_BYTES = 256 * 1024 * 1024;

export class ResumptionRelay {
  /** For the tunnel. */
  readonly stream: Duplex;
  /** The destination's QEMU goes on, and has told what it has. Rejects when the tunnel ends before. */
  readonly goesOn: Promise<void>;
  #resolveGoesOn: () => void = () => {};
  #rejectGoesOn: (error: Error) => void = () => {};
  readonly #replies = new ReturnPathDecoder();
  readonly #requests = new ReturnPathEncoder();
  /** For the source's QEMU: which pages are there, then the word to go on with what was asked for since. */
  readonly #pagesThere: Uint8Array[] = [];
  readonly #since: Uint8Array[] = [];
  #heldBytes = 0;
  #acknowledged = false;
  #socket: Socket | undefined;
  /** What QEMU has said of its resuming, which ends in the middle of a message. */
  #said = Buffer.alloc(0);
  #answered: (() => void) | undefined;
  #over: Promise<void> = Promise.resolve();
  #isAnswered = false;

  /** @param blocks the names of the RAM blocks that the source's QEMU asks for */
  constructor(blocks: readonly string[]) {
    this.goesOn = new Promise((resolve, reject) => {
      this.#resolveGoesOn = resolve;
      this.#rejectGoesOn = reject;
    });
    this.goesOn.catch(() => {});
    this.stream = new Duplex({
      read: () => void this.#socket?.resume(),
      write: (chunk: Buffer, _encoding, done) => this.#fromThere(chunk, done),
      // What the destination's QEMU says last must arrive before the end.
      final: (done) => {
        if (this.#socket && this.#isAnswered) this.#socket.end(() => done());
        else done();
      },
      destroy: (error, done) => {
        this.#rejectGoesOn(error ?? new Error('the tunnel ended'));
        void this.cut();
        done(error);
      },
    });
    this.stream.on('error', () => {});
    this.stream.push(resumeCommands(blocks));
  }

  /** Of the source's QEMU, once it is there. */
  get memory(): Socket | undefined {
    return this.#socket;
  }

  /** The source's QEMU, which resumes. */
  join(socket: Socket): void {
    this.#socket = socket;
    this.#over = new Promise((resolve) => {
      this.#answered = resolve;
      socket.once('close', resolve);
    });
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => this.#fromHere(chunk));
    socket.once('close', () => {
      if (!this.stream.destroyed) this.stream.push(null);
    });
    for (const bytes of this.#pagesThere.splice(0)) socket.write(bytes);
    socket.resume();
  }

  /** Ends both ways, QEMU's once it has got all that it needs to be resumed another time. */
  async cut(): Promise<void> {
    if (!this.#isAnswered) await Promise.race([this.#over, sleep(ANSWERED_MS, undefined, { ref: false })]);
    this.#socket?.destroy();
    this.stream.destroy();
  }

  #fromThere(chunk: Buffer, done: (error?: Error | null) => void): void {
    try {
      for (const reply of this.#replies.push(chunk)) {
        const bytes =
          reply.type === 'request-pages'
            ? this.#requests.requestPages(reply.blockName, reply.start, reply.length)
            : reply.bytes;
        if (this.#isAnswered) this.#socket?.write(bytes);
        else this.#hold(bytes, reply.type === 'resume-ack');
      }
      if (this.#isAnswered && this.#socket?.writableNeedDrain) this.#socket.once('drain', () => done());
      else done();
    } catch (error) {
      done(error as Error);
    }
  }

  #hold(bytes: Uint8Array, acknowledges: boolean): void {
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > HELD_BYTES)
      throw new StreamError('The destination says too much before it goes on.');
    this.#acknowledged ||= acknowledges;
    (this.#acknowledged ? this.#since : this.#pagesThere).push(bytes);
    if (acknowledges) this.#resolveGoesOn();
  }

  #fromHere(chunk: Buffer): void {
    if (this.#isAnswered) {
      if (!this.stream.destroyed && !this.stream.push(chunk)) this.#socket?.pause();
      return;
    }
    this.#said = Buffer.concat([this.#said, chunk]);
    while (this.#said.length >= COMMAND_BYTES) {
      const length = COMMAND_BYTES + this.#said.readUInt16BE(3);
      if (this.#said.length < length) return;
      const resumes = this.#said[0] === RecordType.command && this.#said.readUInt16BE(1) === Command.resume;
      this.#said = this.#said.subarray(length);
      if (!resumes) continue;
      this.#answer();
      return;
    }
  }

  #answer(): void {
    for (const bytes of this.#since.splice(0)) this.#socket?.write(bytes);
    this.#isAnswered = true;
    this.#answered?.();
    if (this.#said.length > 0) this.#fromHere(this.#said);
  }
}

/** All that a source's QEMU says of it: which pages are there, for each block, and to go on. */
function resumeCommands(blocks: readonly string[]): Buffer {
  const asked = blocks.map((block) => {
    const name = Buffer.from(block, 'latin1');
    return command(Command.recvBitmap, Buffer.concat([Buffer.of(name.length), name]));
  });
  return Buffer.concat([...asked, command(Command.resume, Buffer.alloc(0))]);
}

function command(number: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(COMMAND_BYTES);
  head[0] = RecordType.command;
  head.writeUInt16BE(number, 1);
  head.writeUInt16BE(payload.length, 3);
  return Buffer.concat([head, payload]);
}
