/**
 * The images that a session created, noted on disk while it may still be given up: an agent that is killed cannot
 * remove them, and the next one can. An image is noted as the file that it is, not only as its path: what somebody has
 * put there since stays.
 *
 *     created (empty) ── noted, synced ──▶ made an image ── kept or removed ──▶ the note is gone
 *
 * One killed within the first step leaves an empty file.
 */
import { constants, type FileHandle, lstat, mkdir, open, readFile, rm, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';

const MAX_LINES = 1024;

/** As decimal numbers, for they have 64 bits. An inode's number is given again, the time of its birth is not. */
const noteSchema = z.strictObject({
  path: z.string().startsWith('/').max(4096),
  dev: z.string(),
  ino: z.string(),
  birthtimeNs: z.string(),
});
type Note = z.infer<typeof noteSchema>;

/** Of one session. */
export class ImageRecord {
  readonly #file: string;

  /** @param file its own; its directory need not be there yet */
  constructor(file: string) {
    this.#file = file;
  }

  /** Resolves when it is on disk. */
  async add(path: string, image: FileHandle): Promise<void> {
    const note: Note = { path, ...identityOf(await image.stat({ bigint: true })) };
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
    const record = await open(this.#file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    try {
      await record.appendFile(`${JSON.stringify(note)}\n`);
      await record.sync();
    } finally {
      await record.close();
    }
  }

  /** The images are their guest's now, or gone. Any number of times. */
  async forget(): Promise<void> {
    await rm(this.#file, { force: true });
  }

  /** Removes what is still what was created; gives the paths of it, and forgets all. */
  async removeImages(): Promise<readonly string[]> {
    const removed: string[] = [];
    for (const { path, ...noted } of await this.#notes()) {
      const found = await lstat(path, { bigint: true }).catch(nothing);
      if (found === undefined || !isSame(noted, identityOf(found))) continue;
      await unlink(path);
      removed.push(path);
    }
    await this.forget();
    return removed;
  }

  /** Those that were written to their end. */
  async #notes(): Promise<readonly Note[]> {
    const text = (await readFile(this.#file, 'utf8').catch(nothing)) ?? '';
    const whole = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
    return whole
      .slice(0, MAX_LINES)
      .filter((line) => line !== '')
      .map((line) => noteSchema.parse(JSON.parse(line)));
  }
}

type Identity = Omit<Note, 'path'>;

function identityOf(found: { readonly [Key in keyof Identity]: bigint }): Identity {
  return {
    dev: String(found.dev),
    ino: String(found.ino),
    birthtimeNs: String(found.birthtimeNs),
  };
}

function isSame(one: Identity, other: Identity): boolean {
  return one.dev === other.dev && one.ino === other.ino && one.birthtimeNs === other.birthtimeNs;
}

function nothing(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
  throw error;
}
