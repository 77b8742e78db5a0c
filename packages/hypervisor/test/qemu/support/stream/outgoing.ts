/** A source's QEMU that writes a recorded stream, and the agent's end of it. */
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { bytes } from '@vmferry/engine/units';
import { LocalListener } from '@vmferry/native/local-socket';
import { OutgoingStream, type OutgoingStreamOptions } from '../../../../src/qemu/outgoing-stream.ts';

const BATCHES = { rawPages: 32, pages: 64 };

export function recordedPostcopy(version: string): Buffer {
  const name = `../../recordings/qemu-${version}-postcopy.stream.gz`;
  return gunzipSync(readFileSync(new URL(name, import.meta.url)));
}

/** `path` is where a socket may be made. */
export async function connectedToQemu(
  path: string,
  progress: OutgoingStreamOptions['progress'] = () => Promise.reject(new Error('nobody asks')),
): Promise<{ outgoing: OutgoingStream; qemu: Socket }> {
  const accepted = new LocalListener(path).accept();
  const qemu = connect(path);
  const outgoing = new OutgoingStream({
    plan: {
      throttle: false,
      postcopy: true,
      batches: { precopy: BATCHES, postcopy: BATCHES },
      bufferBytes: bytes(2 ** 22),
    },
    progress,
    completed: () => Promise.resolve(),
  });
  outgoing.begin({ socket: (await accepted)!, pid: undefined, addresses: new Map() });
  return { outgoing, qemu };
}
