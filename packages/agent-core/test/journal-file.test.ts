import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { JournalFile, journalPath, journalSessions } from '../src/journal-file.ts';

let root: string;
let path: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'vmferry-journal-'));
  path = journalPath(join(root, 'state'), 'session-1');
});
afterEach(() => rm(root, { recursive: true, force: true }));

describe('JournalFile', () => {
  it('creates its directories for the owner alone, and the file too', async () => {
    const journal = await JournalFile.open(path);
    await journal.append('one');
    await journal.close();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(root, 'state'))).mode & 0o777).toBe(0o700);
    expect((await stat(join(root, 'state', 'journal'))).mode & 0o777).toBe(0o700);
  });

  it('keeps the order of appends that were not waited for', async () => {
    const journal = await JournalFile.open(path);
    const lines = Array.from({ length: 200 }, (_, n) => `record ${n}`);
    await Promise.all(lines.map((line) => journal.append(line)));
    await journal.close();
    expect(await readFile(path, 'utf8')).toBe(`${lines.join('\n')}\n`);
  });

  it('has the line in the file when append resolves', async () => {
    const journal = await JournalFile.open(path);
    await journal.append('COMMIT');
    expect(await readFile(path, 'utf8')).toBe('COMMIT\n');
    await journal.close();
  });

  it('goes on with an existing file', async () => {
    const first = await JournalFile.open(path);
    await first.append('one');
    await first.close();
    const second = await JournalFile.open(path);
    await second.append('two');
    expect(await second.readAll()).toBe('one\ntwo\n');
    await second.close();
  });

  it('leaves out a line that was torn by a crash, and replaces it with the next append', async () => {
    const first = await JournalFile.open(path);
    await first.append('schön');
    await first.close();
    await appendFile(path, Buffer.from([0x74, 0x6f, 0x72, 0xc3]));
    const second = await JournalFile.open(path);
    expect(await second.readAll()).toBe('schön\n');
    expect((await readFile(path)).at(-1)).toBe(0xc3);
    await second.append('two');
    expect(await second.readAll()).toBe('schön\ntwo\n');
    expect(await readFile(path, 'utf8')).toBe('schön\ntwo\n');
    await second.close();
  });

  it('finds a directory whose file a crash kept from being made', async () => {
    await mkdir(join(root, 'state', 'journal'), { recursive: true });
    const journal = await JournalFile.open(path);
    expect(await journal.readAll()).toBe('');
    await journal.append('one');
    expect(await journal.readAll()).toBe('one\n');
    await journal.close();
  });

  it('holds no file once it is closed, and still takes what comes later', async () => {
    const held = async (): Promise<boolean> => {
      const links = (await readdir('/proc/self/fd')).map((fd) =>
        readlink(`/proc/self/fd/${fd}`).catch(() => ''),
      );
      return (await Promise.all(links)).includes(path);
    };
    const journal = await JournalFile.open(path);
    const one = journal.append('one');
    const closed = journal.close();
    const two = journal.append('two');
    await Promise.all([one, closed, two]);
    expect(await held()).toBe(false);
    await appendFile(path, 'torn');
    await journal.append('three');
    expect(await journal.readAll()).toBe('one\ntwo\nthree\n');
    expect(await held()).toBe(false);
    await journal.close();
  });

  it('is written anew, with all its lines, where its directory was removed meanwhile', async () => {
    const journal = await JournalFile.open(path);
    await journal.append('started');
    await rm(join(root, 'state'), { recursive: true });
    await journal.append('committed');
    expect(await readFile(path, 'utf8')).toBe('started\ncommitted\n');
    await journal.append('done');
    expect(await journal.readAll()).toBe('started\ncommitted\ndone\n');
    await journal.close();
  });

  it('refuses a record with a line break', async () => {
    const journal = await JournalFile.open(path);
    await expect(journal.append('a\nb')).rejects.toMatchObject({ code: 'E_JOURNAL' });
    expect(await journal.readAll()).toBe('');
    await journal.close();
  });

  it('says that no space is left, and takes nothing any more', async () => {
    const journal = await JournalFile.open('/dev/full');
    await expect(journal.append('one')).rejects.toMatchObject({
      code: 'E_JOURNAL',
      message: 'cannot write to the journal /dev/full: no space left',
    });
    await expect(journal.append('two')).rejects.toMatchObject({ code: 'E_JOURNAL' });
    await journal.close();
  });

  it('refuses a place where the kernel makes no directories', async () => {
    await expect(JournalFile.open(journalPath('/proc/none/at/all', 'session-1'))).rejects.toMatchObject({
      code: 'E_JOURNAL',
      message: expect.stringContaining('/proc/none'),
      remedy: expect.stringContaining('--state-dir'),
    });
  });

  it('says that a file stands where its directory should be', async () => {
    await writeFile(join(root, 'state'), '');
    await expect(JournalFile.open(path)).rejects.toMatchObject({
      code: 'E_JOURNAL',
      message: expect.stringContaining('not a directory'),
    });
  });

  it('follows no symbolic link', async () => {
    await mkdir(join(root, 'state', 'journal'), { recursive: true });
    await writeFile(join(root, 'precious'), '');
    await symlink(join(root, 'precious'), path);
    await expect(JournalFile.open(path)).rejects.toMatchObject({
      code: 'E_JOURNAL',
      message: expect.stringContaining('symbolic link'),
    });
  });

  it('says that permission is denied', async () => {
    await chmod(root, 0o555);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65534);
    try {
      await expect(JournalFile.open(path)).rejects.toMatchObject({
        code: 'E_JOURNAL',
        message: expect.stringContaining('permission denied'),
        remedy: expect.stringContaining('--state-dir'),
      });
    } finally {
      if (isRoot) process.seteuid?.(0);
      await chmod(root, 0o755);
    }
  });

  it('refuses a session that would leave the directory', () => {
    for (const session of ['../x', 'a/b', '', '.hidden', 'x'.repeat(129)]) {
      expect(() => journalPath(root, session)).toThrow(/cannot be the name/);
    }
  });

  it('lists the sessions that have a journal', async () => {
    expect(await journalSessions(join(root, 'state'))).toEqual([]);
    for (const session of ['b', 'a']) {
      await (await JournalFile.open(journalPath(join(root, 'state'), session))).close();
    }
    await writeFile(join(root, 'state', 'journal', 'README'), '');
    expect(await journalSessions(join(root, 'state'))).toEqual(['a', 'b']);
  });
});
