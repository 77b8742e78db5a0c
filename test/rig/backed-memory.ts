/**
 * Memory that is there already. On a machine that is itself virtual, free memory soon goes back to its host: touching
 * it for the first time then took 2300 ms for 512 MiB in huge pages, and 90 ms where it was backed. That would fall on
 * whichever migration is measured next, in the time that the destination's hypervisor needs, and says nothing of it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A guest, and room. */
const BYTES = 2 ** 30;

export interface BackedMemory {
  /** Gives it back, right before others want it: it stays backed for a second or two. */
  stop(): Promise<void>;
}

/** In huge pages, as QEMU asks for them: others come from elsewhere in the kernel's lists. */
const HOLD = `
import mmap, sys
size = int(sys.argv[1])
held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, size, 4096):
    held[at] = 1
print("held", flush=True)
sys.stdin.read()
`;

/** Has so much memory touched and held by a process of its own. */
export async function backMemory(bytes = BYTES): Promise<BackedMemory> {
  const child = spawn('python3', ['-c', HOLD, String(bytes)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const [first] = (await Promise.race([once(child.stdout, 'data'), ended])) as unknown[];
  if (!Buffer.isBuffer(first)) throw new Error(`memory for the bench could not be had (${String(first)})`);
  return {
    async stop() {
      child.stdin.end();
      await ended;
    },
  };
}
