/** What a restarted agent settles by its journals, and what it leaves alone. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JournalFile, journalPath } from '@vmferry/agent-core/journal-file';
import { createLogger } from '@vmferry/agent-core/log';
import { encodeRecord, parseJournal, type SourceRecordState } from '@vmferry/engine/journal/records';
import type { Committed, TakenBack } from '@vmferry/hypervisor/qemu/left-source';
import { settleLeftovers } from '@vmferry/source-agent/leftovers';
import { afterEach, beforeEach, expect, test } from 'vitest';

const GUEST = 'qemu:/run/vm/web1.sock';
const runs: TakenBack = { found: 'here', status: 'running', ranBefore: true };
let stateDir: string;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
});
afterEach(() => rm(stateDir, { recursive: true, force: true }));

async function journal(session: string, ...states: SourceRecordState[]): Promise<void> {
  const file = await JournalFile.open(journalPath(stateDir, `${session}-source`));
  for (const state of states) {
    const record = { v: 1, session, guest: GUEST, role: 'source', state, mode: 'postcopy', at: 1 } as const;
    await file.append(encodeRecord(record).trimEnd());
  }
  await file.close();
}

async function last(session: string): Promise<string | undefined> {
  const text = await readFile(journalPath(stateDir, `${session}-source`), 'utf8');
  return parseJournal(text).records.at(-1)?.state;
}

interface Line {
  readonly level: string;
  readonly code?: string;
  readonly guestRunsOn?: string;
  readonly remedy?: string;
}

async function settle(
  taken: TakenBack,
  seen: Committed = { found: 'gone' },
  guest?: string,
): Promise<{ readonly tookBack: string[]; readonly looked: string[]; readonly log: Line[] }> {
  const tookBack: string[] = [];
  const looked: string[] = [];
  const log: Line[] = [];
  const destination = { write: (line: string) => void log.push(JSON.parse(line) as Line) };
  await settleLeftovers({
    stateDir,
    log: createLogger({ level: 'info', role: 'source', destination }),
    takeBack: (uri, session) => {
      expect(uri).toBe(GUEST);
      tookBack.push(session);
      return Promise.resolve(taken);
    },
    look: (_uri, session) => {
      looked.push(session);
      return Promise.resolve(seen);
    },
    ...(guest === undefined ? {} : { guest }),
  });
  return { tookBack, looked, log };
}

test.each([
  [['started']],
  [['started', 'sealed']],
  [['started', 'sealed', 'committed', 'rolling-back']],
] as const)('without a commit (%j) the guest is taken back, once', async (states) => {
  await journal('a', ...states);
  const { tookBack, log } = await settle(runs);
  expect(tookBack).toEqual(['a']);
  expect(log).toMatchObject([{ level: 'info', guestRunsOn: 'source' }]);
  expect(await last('a')).toBe('rolled-back');
  expect(await settle(runs)).toEqual({ tookBack: [], looked: [], log: [] });
});

test.each([
  [{ found: 'here', status: 'postmigrate', ranBefore: false }, 'info', 'rolled-back'],
  [{ found: 'here', status: 'io-error', ranBefore: true }, 'warn', 'rolled-back'],
  [{ found: 'gone' }, 'warn', 'rolled-back'],
  [{ found: 'unmarked', status: 'running' }, 'info', 'rolled-back'],
  [{ found: 'unmarked', status: 'postmigrate' }, 'error', 'started'],
  [{ found: 'kept', why: 'another client holds the monitor', remedy: 'wait' }, 'error', 'started'],
] as const)('what was found (%j) is told as %s and leaves the journal at %s', async (taken, level, state) => {
  await journal('a', 'started');
  expect((await settle(taken)).log).toMatchObject([{ level }]);
  expect(await last('a')).toBe(state);
});

test.each([
  [{ found: 'here', status: 'postmigrate', migration: 'completed' }, 'unknown'],
  [{ found: 'here', status: 'finish-migrate', migration: 'postcopy-paused' }, 'dest'],
  [{ found: 'here', status: 'running', migration: 'completed' }, 'source'],
  [{ found: 'kept', why: 'another client holds the monitor', remedy: 'wait' }, 'unknown'],
] as const)('after the commit nothing is touched, and %j is told every time', async (seen, guestRunsOn) => {
  await journal('a', 'started', 'sealed', 'committed');
  for (let agent = 0; agent < 2; agent += 1) {
    const { tookBack, looked, log } = await settle(runs, seen);
    expect([tookBack, looked]).toEqual([[], ['a']]);
    expect(log).toMatchObject([
      { level: 'error', code: 'E_LINK_LOST', guestRunsOn, remedy: expect.stringMatching(/\S/) },
    ]);
  }
  expect(await last('a')).toBe('committed');
});

test('after the commit, with nothing of the guest left here, the migration is over', async () => {
  await journal('a', 'started', 'sealed', 'committed');
  expect((await settle(runs)).log).toMatchObject([{ level: 'warn', guestRunsOn: 'dest' }]);
  expect(await last('a')).toBe('done');
});

test('of one guest nothing but its own is settled', async () => {
  await journal('a', 'started');
  expect((await settle(runs, undefined, 'qemu:/run/vm/other.sock')).tookBack).toEqual([]);
  expect((await settle(runs, undefined, GUEST)).tookBack).toEqual(['a']);
});

test('what is over, empty or damaged is left as it is, and does not keep the others from being settled', async () => {
  await journal('done', 'started', 'sealed', 'committed', 'done');
  await journal('back', 'started', 'rolling-back', 'rolled-back');
  await journal('empty');
  await journal('a', 'started');
  await journal('b', 'started');
  await writeFile(journalPath(stateDir, 'a-source'), 'not a record\n');
  expect((await settle(runs)).tookBack).toEqual(['b']);
  expect(await readFile(journalPath(stateDir, 'a-source'), 'utf8')).toBe('not a record\n');
});

test('journals that cannot be read keep nobody from their work', async () => {
  await writeFile(join(stateDir, 'journal'), '');
  expect((await settle(runs)).log).toMatchObject([{ level: 'error' }]);
});
