/**
 * From a `ws` WebSocket that has just been opened to a lane on the same connection. The bytes on the wire
 * stay the same, so the peer need not know; what cannot be taken over stays as it is.
 *
 *     ws: upgraded, nothing read ── plain connection ──▶ lane
 *                   └── TLS, no descriptor ────────────▶ ws
 */
import { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { NativeError } from '@vmferry/native/errors';
import type { WebSocket } from 'ws';
import type { FrameSocket } from './frame-socket.ts';
import { LaneSocket } from './lane-socket.ts';

/** What a lane may have received and not got back: as much as a link takes by default. */
const LANE_BYTES = 32 * 1024 * 1024;
/** A batch of pages is smaller than the largest message, and these are enough to have them overlap. */
const MAX_BUFFERS = 8;
/** One is filled while the other is looked at. */
const MIN_BUFFERS = 2;

/**
 * The connection, on a lane where that can be. Must be called in the very turn in which the WebSocket was
 * opened: what `ws` has read for its listeners by then is still in the stream. `socket` is not to be used any
 * more, unless it is the result.
 */
export function takeOver(
  socket: WebSocket,
  role: 'client' | 'server',
  maxMessageBytes: number,
): FrameSocket & (LaneSocket | WebSocket) {
  const found = plainStream(socket);
  if (found === undefined) return socket;
  const { stream, fd } = found;
  const listeners = stream.rawListeners('data');
  stream.removeAllListeners('data');
  stream.pause();
  const prefix = readBuffered(stream);
  const maxBuffers = Math.min(MAX_BUFFERS, Math.max(MIN_BUFFERS, Math.floor(LANE_BYTES / maxMessageBytes)));
  let lane: LaneSocket;
  try {
    lane = new LaneSocket({ fd, role, maxMessageBytes, maxBuffers, prefix });
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    // No addon, no descriptors left, or the peer is gone already: `ws` goes on, and finds that out itself.
    if (prefix.length > 0) stream.unshift(prefix);
    for (const listener of listeners) stream.on('data', listener as (chunk: Buffer) => void);
    stream.resume();
    return socket;
  }
  // Closes this descriptor and nothing else: the connection lives on in the lane's. Nobody is to hear of it.
  stream.removeAllListeners();
  stream.on('error', () => {});
  stream.destroy();
  return lane;
}

/**
 * The stream under a WebSocket and its descriptor, which neither `ws` nor Node show officially: a version that
 * keeps them elsewhere has none here, and its connections stay with `ws`. A TLS stream has a descriptor, too,
 * but what goes over it is not what its user writes.
 */
function plainStream(socket: WebSocket): { readonly stream: Socket; readonly fd: number } | undefined {
  const stream: unknown = Reflect.get(socket, '_socket');
  if (!(stream instanceof Socket) || stream instanceof TLSSocket || stream.destroyed) return undefined;
  // Something, like the answer to the upgrade, still waits for the kernel.
  if (stream.writableLength > 0) return undefined;
  const handle: unknown = Reflect.get(stream, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof fd === 'number' && fd >= 0 ? { stream, fd } : undefined;
}

function readBuffered(stream: Socket): Buffer {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk: Buffer | null = stream.read();
    if (chunk === null) return Buffer.concat(chunks);
    chunks.push(chunk);
  }
}
