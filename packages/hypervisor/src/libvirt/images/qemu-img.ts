/** `qemu-img create` on a file that is open already, without a shell. */
import { spawn } from 'node:child_process';
import type { FileHandle } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import type { ImageRequest } from './request.ts';

const TIMEOUT_MS = 60_000;
const WORDS = 500;
/** Where the child finds the open file: its descriptors begin with the three of every process. */
const THE_FILE = '/proc/self/fd/3';

/**
 * Makes the open, empty file an image. What lies below it is only noted in it, not opened.
 *
 * @param program `qemu-img`, or where it is
 * @throws GuestError E_GUEST_FAILED with what the program said
 */
export async function createImage(
  file: FileHandle,
  { format, virtualBytes, backing, path }: ImageRequest,
  program = 'qemu-img',
): Promise<void> {
  const below = backing === undefined ? [] : ['-u', '-F', backing.format, '-b', backing.path];
  const child = spawn(program, ['create', '-q', '-f', format, ...below, THE_FILE, String(virtualBytes)], {
    stdio: ['ignore', 'ignore', 'pipe', file.fd],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    env: { PATH: `${process.env['PATH'] ?? ''}:/usr/bin:/usr/local/bin`, LC_ALL: 'C' },
  });
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-WORDS);
  });
  const why = await new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) =>
      resolve(code === 0 ? undefined : said.trim() || `it ended with ${String(signal ?? code)}`),
    );
  });
  if (why === undefined) return;
  throw new GuestError(
    'E_GUEST_FAILED',
    `qemu-img could not create ${path}: ${why}`,
    'Install qemu-img (qemu-utils) on the destination, and check its storage.',
  );
}
