/**
 * The file under a session's journal: append-only lines, on disk before `append` resolves.
 *
 * What the lines mean is the engine's. What this file promises: a line whose `append` resolved survives a
 * crash of the agent and of the host; lines keep their order; a line that was being written when the host
 * died is as if it had never been written. A file that somebody removes meanwhile is written anew, with all its lines.
 *
 * Errors are `GuestError` with `E_JOURNAL`: the agent adds the phase and where the guest runs.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { GuestError, messageOf } from '@vmferry/engine/errors';

/** A journal holds a handful of short records; a bigger file is not one of ours. */
const JOURNAL_MAX_BYTES = 16 * 1024 * 1024;
const SUFFIX = '.journal';
const FLAGS = constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW;
const SESSION_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** The journal of one session: `stateDir/journal/SESSION.journal`. */
export function journalPath(stateDir: string, session: string): string {
  if (!SESSION_ID.test(session)) {
    throw new GuestError(
      'E_JOURNAL',
      `${JSON.stringify(session)} cannot be the name of a session`,
      'A session has letters, digits, - and _, at most 128.',
    );
  }
  return join(stateDir, 'journal', session + SUFFIX);
}

/** The sessions that have a journal in `stateDir`, sorted; none when there is no such directory yet. */
export async function journalSessions(stateDir: string): Promise<readonly string[]> {
  const directory = join(stateDir, 'journal');
  try {
    const names = await readdir(directory);
    return names
      .filter((name) => name.endsWith(SUFFIX))
      .map((name) => name.slice(0, -SUFFIX.length))
      .filter((session) => SESSION_ID.test(session))
      .sort();
  } catch (cause) {
    if (errno(cause) === 'ENOENT') return [];
    throw journalError('read the directory of journals', directory, cause);
  }
}

export class JournalFile {
  readonly path: string;
  /** Undefined while it is closed. */
  #file: FileHandle | undefined;
  #tail: Promise<void> = Promise.resolve();
  #broken: GuestError | undefined;
  #closed = false;
  /** The file is known to end with a whole line. */
  #whole = false;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /**
   * Opens the file for appending, and creates it (0600) and its directories (0700) where they are missing.
   * A new file's name is on disk when this resolves. Reading an existing one changes nothing.
   */
  static async open(path: string): Promise<JournalFile> {
    const absolute = resolve(path);
    try {
      await makeDirectories(dirname(absolute));
      const { file, created } = await openOrCreate(absolute);
      if (created) await syncDirectory(dirname(absolute));
      return new JournalFile(absolute, file);
    } catch (cause) {
      throw cause instanceof GuestError ? cause : journalError('open the journal', absolute, cause);
    }
  }

  /**
   * Adds one line (without a line break in it); resolves after fdatasync. Lines of concurrent calls are
   * written in the order of the calls. After a failure the journal takes no more lines: what the disk
   * holds can no longer be told by the kernel (a failed fsync is reported once, the next one may lie).
   */
  append(line: string): Promise<void> {
    return this.#inTurn(() => this.#append(line));
  }

  /** All whole lines, each with its line break; a torn last line is left out. */
  readAll(): Promise<string> {
    return this.#inTurn(async () => {
      const { bytes, end } = await this.#read();
      return bytes.toString('utf8', 0, end);
    });
  }

  /**
   * Waits for appends under way. Idempotent. What still comes to be written afterwards (a migration that needs an
   * operator may end yet) opens the file for itself.
   */
  close(): Promise<void> {
    this.#closed = true;
    return this.#inTurn(() => Promise.resolve());
  }

  /** Work on the file, one after the other. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#tail.then(work).finally(() => (this.#closed ? this.#letGo() : undefined));
    this.#tail = mine.then(
      () => {},
      () => {},
    );
    return mine;
  }

  async #letGo(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#whole = false;
    await file?.close();
  }

  async #opened(): Promise<FileHandle> {
    this.#file ??= await open(this.path, FLAGS);
    return this.#file;
  }

  async #append(line: string): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    if (/[\n\r]/.test(line)) {
      throw new GuestError('E_JOURNAL', 'a journal record holds a line break', 'This is a bug in vmferry.');
    }
    try {
      let file = await this.#opened();
      if ((await file.stat()).nlink === 0) file = await this.#writeAnew();
      if (!this.#whole) {
        const { bytes, end } = await this.#read();
        if (end < bytes.length) await file.truncate(end);
        this.#whole = true;
      }
      await file.appendFile(`${line}\n`);
      await file.datasync();
    } catch (cause) {
      this.#broken =
        cause instanceof GuestError ? cause : journalError('write to the journal', this.path, cause);
      throw this.#broken;
    }
  }

  /** A file without a name takes lines like any other, and nobody ever finds them. */
  async #writeAnew(): Promise<FileHandle> {
    const { bytes, end } = await this.#read();
    const gone = this.#file;
    await makeDirectories(dirname(this.path));
    const { file } = await openOrCreate(this.path);
    this.#file = file;
    await gone?.close();
    await file.appendFile(bytes.subarray(0, end));
    await syncDirectory(dirname(this.path));
    return file;
  }

  async #read(): Promise<{ bytes: Buffer; end: number }> {
    try {
      const file = await this.#opened();
      const { size } = await file.stat();
      if (size > JOURNAL_MAX_BYTES) {
        throw new GuestError(
          'E_JOURNAL',
          `${this.path} has ${size} bytes; a journal has at most ${JOURNAL_MAX_BYTES}`,
          'This is not a journal of vmferry: move the file away.',
        );
      }
      const bytes = Buffer.alloc(size);
      let filled = 0;
      while (filled < size) {
        const { bytesRead } = await file.read(bytes, filled, size - filled, filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      const content = bytes.subarray(0, filled);
      return { bytes: content, end: content.lastIndexOf(0x0a) + 1 };
    } catch (cause) {
      throw cause instanceof GuestError ? cause : journalError('read the journal', this.path, cause);
    }
  }
}

async function openOrCreate(path: string): Promise<{ file: FileHandle; created: boolean }> {
  try {
    return { file: await open(path, FLAGS | constants.O_CREAT | constants.O_EXCL, 0o600), created: true };
  } catch (cause) {
    if (errno(cause) !== 'EEXIST') throw cause;
    return { file: await open(path, FLAGS), created: false };
  }
}

/**
 * Creates what is missing of `directory`, and makes every new name last. Node's own way of making parents
 * (`recursive`) tries for ever, on the event loop, where the kernel says ENOENT beside a parent that is there, as
 * /proc does.
 */
async function makeDirectories(directory: string): Promise<void> {
  if ((await makeDirectory(directory)) !== 'no-parent') return;
  await makeDirectories(dirname(directory));
  if ((await makeDirectory(directory)) === 'no-parent') {
    throw new GuestError(
      'E_JOURNAL',
      `cannot make the directory of the journals, ${directory}: no directory can be made there`,
      'Choose another directory with --state-dir (stateDir).',
    );
  }
}

async function makeDirectory(directory: string): Promise<'there' | 'no-parent'> {
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (cause) {
    if (errno(cause) === 'EEXIST') return 'there';
    if (errno(cause) === 'ENOENT') return 'no-parent';
    throw cause;
  }
  await syncDirectory(dirname(directory));
  return 'there';
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function journalError(what: string, path: string, cause: unknown): GuestError {
  const { why, remedy } = explain(errno(cause), path);
  const detail = why ?? messageOf(cause);
  return new GuestError('E_JOURNAL', `cannot ${what} ${path}: ${detail}`, remedy, { cause });
}

function explain(code: string | undefined, path: string): { why?: string; remedy: string } {
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return { why: 'no space left', remedy: `Free some space on the file system of ${dirname(path)}.` };
    case 'EROFS':
      return {
        why: 'the file system is read-only',
        remedy: 'Mount it for writing, or choose another directory with --state-dir (stateDir).',
      };
    case 'EACCES':
    case 'EPERM':
      return {
        why: 'permission denied',
        remedy:
          'Let the user of the agent write there, or choose another directory with --state-dir (stateDir).',
      };
    case 'ENOTDIR':
    case 'EEXIST':
      return {
        why: 'a part of the path is a file, not a directory',
        remedy: 'Move that file away, or choose another directory with --state-dir (stateDir).',
      };
    case 'EISDIR':
      return { why: 'it is a directory', remedy: 'Move that directory away.' };
    case 'ELOOP':
      return { why: 'it is a symbolic link', remedy: 'Move that link away: journals are plain files.' };
    case 'EIO':
      return { why: 'input/output error', remedy: 'Look at the kernel log: the disk may be failing.' };
    default:
      return { remedy: `Look at ${dirname(path)}, or choose another directory with --state-dir (stateDir).` };
  }
}

function errno(cause: unknown): string | undefined {
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : undefined;
}
