/**
 * The bytes of a local connection, both ways, over a link of its own: verbatim, in order, checked, and no more on
 * their way than the link's window has room for.
 *
 *     local ── read ──▶ frame ──▶ link ═══▶ link ──▶ written ──▶ consumed (acknowledged)
 *
 * The end of either side ends both, once what was on its way has arrived.
 */
import type { Duplex } from 'node:stream';
import { WireError } from './errors.ts';
import { type Frame, FrameKind, frameAround } from './frame.ts';
import type { Link } from './link.ts';

/** Frames are small beside what a link takes, so that none of them holds up an acknowledgement for long. */
const CHUNK_BYTES = 256 * 1024;

export class Tunnel {
  /** Resolves when both ends are closed; with an error unless the link's end was orderly. Never rejects. */
  readonly ended: Promise<{ readonly error?: WireError }>;
  readonly #link: Link;
  readonly #local: Duplex;

  /** Takes over both. Frames of the link are to be given to `onFrame`. */
  constructor(link: Link, local: Duplex) {
    this.#link = link;
    this.#local = local;
    // Told by the end of the stream that follows.
    local.on('error', () => {});
    this.ended = link.closed.then(async (how) => {
      await closed(local);
      return how;
    });
    void this.#pump();
  }

  onFrame(frame: Frame): void {
    if (frame.kind !== FrameKind.opaque) {
      this.#link.drop(new WireError('E_FRAME', `a frame of kind ${frame.kind} came on ${this.#link.name}`));
      return;
    }
    if (this.#local.destroyed || this.#local.writableEnded) {
      this.#link.consumed(frame);
      return;
    }
    this.#local.write(frame.payload, () => {
      if (this.#link.state === 'open') this.#link.consumed(frame);
    });
  }

  /** Ends both sides, after what was read here has been taken over there. */
  async close(): Promise<void> {
    this.#local.destroy();
    await this.ended;
  }

  async #pump(): Promise<void> {
    try {
      for await (const chunk of this.#local) await this.#send(chunk as Buffer);
      await this.#link.drained();
    } catch {
      // The local side broke, or the link did, which tells of it itself.
    }
    await this.#link.close();
  }

  async #send(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      await this.#link.send(frameAround(FrameKind.opaque, bytes.subarray(at, at + CHUNK_BYTES)));
    }
  }
}

/** What was written before still goes out. */
async function closed(local: Duplex): Promise<void> {
  if (local.destroyed) return;
  await new Promise<void>((resolve) => {
    local.once('close', resolve);
    local.end(() => local.destroy());
  });
}
