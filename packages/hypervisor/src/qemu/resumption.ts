/**
 * What a QEMU says whose post-copy is resumed, and what it is answered.
 *
 *     QEMU: recv-bitmap (each block) ─▶   ◀─ which pages are here: all, or none
 *           resume ─▶                     ◀─ resume-ack
 *           those that are not, and the end of its stream
 */
import { once } from 'node:events';
import { chmod } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { GuestError } from '@vmferry/engine/errors';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { Command, RecordType } from './stream/format.ts';
import { ReturnPathEncoder } from './stream/return-path.ts';

/** For QEMU's connection, and again for all that it says. */
const TIMEOUT_MS = 30_000;
/** Type, command and length. */
const COMMAND_BYTES = 5;

/** Listens at `path`, has QEMU told to resume there by `ask`, and gives its connection. */
export async function acceptResumption(path: string, ask: () => Promise<unknown>): Promise<Socket> {
  const server = createServer();
  try {
    server.listen(path);
    await once(server, 'listening');
    // QEMU may run as another user.
    await chmod(path, 0o777);
    const connected = connectionTo(server);
    await ask();
    const socket = await connected;
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(tooSlow()));
    return socket;
  } finally {
    server.close();
  }
}

function connectionTo(server: Server): Promise<Socket> {
  const found = new Promise<Socket>((resolve, reject) => {
    const timer = setTimeout(() => reject(tooSlow()), TIMEOUT_MS);
    server.once('connection', (socket: Socket) => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
  found.catch(() => {});
  return found;
}

export interface ResumptionAnswers {
  /** Each RAM block's size in bytes, by its name. */
  readonly blocks: ReadonlyMap<string, number>;
  readonly pagesHere: 'all' | 'none';
  /** QEMU goes on. `asked`: the blocks that it has asked for, by name. */
  readonly resumed: (replies: ReturnPathEncoder, asked: readonly string[]) => void;
  /** It has written something since, which nobody looks at. */
  readonly wrote?: () => void;
}

/** Resolves at the end of QEMU's stream. */
export async function answerResumption(socket: Socket, answers: ResumptionAnswers): Promise<void> {
  const replies = new ReturnPathEncoder();
  let left: Buffer = Buffer.alloc(0);
  let resumed = false;
  const asked: string[] = [];
  for await (const chunk of socket) {
    if (resumed) {
      answers.wrote?.();
      continue;
    }
    left = Buffer.concat([left, chunk as Buffer]);
    while (!resumed && left.length >= COMMAND_BYTES && left.length >= COMMAND_BYTES + left.readUInt16BE(3)) {
      const command = left.readUInt16BE(1);
      const payload = left.subarray(COMMAND_BYTES, COMMAND_BYTES + left.readUInt16BE(3));
      if (left[0] !== RecordType.command) throw notUnderstood();
      if (command === Command.recvBitmap) {
        const name = payload.toString('latin1', 1, 1 + (payload[0] ?? 0));
        const size = answers.blocks.get(name);
        if (size === undefined) throw notUnderstood();
        asked.push(name);
        socket.write(replies.pagesHere(answers.pagesHere, name, Math.ceil(size / PAGE_BYTES)));
      } else if (command === Command.resume) {
        resumed = true;
        socket.write(replies.resumeAck());
        answers.resumed(replies, asked);
      }
      left = left.subarray(COMMAND_BYTES + payload.length);
    }
  }
}

function notUnderstood(): GuestError {
  return new GuestError(
    'E_STREAM',
    'what QEMU says when its post-copy is resumed is not understood',
    'report this with the version of QEMU',
  );
}

function tooSlow(): GuestError {
  return new GuestError(
    'E_TIMEOUT',
    `QEMU did not finish its post-copy within ${TIMEOUT_MS / 1000} s`,
    "see QEMU's log on the source, then start the agent again",
  );
}
