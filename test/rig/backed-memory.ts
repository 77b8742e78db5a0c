/**
 * Memory that is there already. On a machine that is itself virtual, memory that was free for a while may have gone back
 * to its host: touching it for the first time then took 1700 ms for 512 MiB, and 270 ms afterwards. That would fall on
 * whichever migration is measured next, in the time that the destination's hypervisor needs, and says nothing of it.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Both guests and both agents of a bench. */
const BYTES = 3 * 2 ** 30;
const PIECE_BYTES = 64 * 2 ** 20;

/** Has so much memory touched and given back by a process of its own, so that its next owner finds it backed. */
export async function backMemory(bytes = BYTES): Promise<void> {
  const touch = `const held = [];
    for (let left = ${bytes}; left > 0; left -= ${PIECE_BYTES}) held.push(Buffer.allocUnsafeSlow(${PIECE_BYTES}).fill(1));`;
  await promisify(execFile)(process.execPath, ['-e', touch]);
}
