/** What a restarted agent settles by its journals, and what it leaves alone. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JournalFile, journalPath } from '@vmferry/agent-core/journal-file';
import { createLogger } from '@vmferry/agent-core/log';
import { settleLeftovers } from '@vmferry/dest-agent/leftovers';
import { type DestRecordState, encodeRecord, parseJournal } from '@vmferry/engine/journal/records';
import type { CommittedHere, EndOfPrepared } from '@vmferry/hypervisor/qemu/mark';
import { afterEach, beforeEach, expect, test } from 'vitest';

const GUEST = 'qemu:/run/vm/web1.sock';
let stateDir: string;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
});
afterEach(() => rm(stateDir, { recursive: true, force: true }));

async function journal(session: string, ...states: DestRecordState[]): Promise<void> {
  const file = await JournalFile.open(journalPath(stateDir, `${session}-dest`));
  for (const state of states) {
    const record = { v: 1, session, guest: GUEST, role: 'dest', state, mode: 'postcopy', at: 1 } as const;
    await file.append(encodeRecord(record).trimEnd());
  }
  await file.close();
}

async function last(session: string): Promise<string | undefined> {
  const text = await readFile(journalPath(stateDir, `${session}-dest`), 'utf8');
  return parseJournal(text).records.at(-1)?.state;
}

/** Gives the sessions whose hypervisors were to be ended. */
async function settle(end: EndOfPrepared): Promise<string[]> {
  const asked: string[] = [];
  await settleLeftovers({
    stateDir,
    log: createLogger({ level: 'silent', role: 'dest' }),
    endPrepared: (uri, session) => {
      expect(uri).toBe(GUEST);
      asked.push(session);
      return Promise.resolve(end);
    },
    look: () => Promise.resolve({ found: 'gone' }),
  });
  return asked;
}

/** What the log says of guests that were committed, of which one stands as `seen`. */
async function toldOf(seen: CommittedHere): Promise<Record<string, unknown>[]> {
  const lines: string[] = [];
  await settleLeftovers({
    stateDir,
    log: createLogger({ level: 'warn', role: 'dest', destination: { write: (line) => lines.push(line) } }),
    endPrepared: () => expect.unreachable('what was committed is not ended'),
    look: (uri, session) => {
      expect([uri, session]).toEqual([GUEST, 'run']);
      return Promise.resolve(seen);
    },
  });
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

test.each([{ found: 'ended' }, { found: 'gone' }] as const)(
  'a guest that was promised to nobody is discarded ($found), once',
  async (end) => {
    await journal('a', 'started');
    expect(await settle(end)).toEqual(['a']);
    expect(await last('a')).toBe('discarded');
    expect(await settle(end)).toEqual([]);
  },
);

test('what could not be ended is tried again by the next agent', async () => {
  await journal('a', 'started');
  expect(await settle({ found: 'kept', why: 'another client holds the monitor' })).toEqual(['a']);
  expect(await last('a')).toBe('started');
  expect(await settle({ found: 'ended' })).toEqual(['a']);
});

test('nothing is touched once the source was promised anything, or when all is over', async () => {
  await journal('ready', 'started', 'ready');
  await journal('run', 'started', 'ready', 'run');
  await journal('done', 'started', 'ready', 'run', 'done');
  await journal('discarded', 'started', 'discarded');
  await journal('empty');
  expect(await settle({ found: 'ended' })).toEqual([]);
  expect(await last('ready')).toBe('ready');
  expect(await last('run')).toBe('run');
});

test('a damaged journal is left as it is, and does not keep the others from being settled', async () => {
  await journal('a', 'started');
  await journal('b', 'started');
  const path = journalPath(stateDir, 'a-dest');
  await writeFile(path, 'not a record\n');
  expect(await settle({ found: 'ended' })).toEqual(['b']);
  expect(await readFile(path, 'utf8')).toBe('not a record\n');
});

test('an agent that never ran before has nothing to settle', async () => {
  expect(await settle({ found: 'ended' })).toEqual([]);
});

test.each([
  [{ found: 'here', status: 'paused', migration: 'completed' }, /let it run here/, /is whole/],
  [{ found: 'here', status: 'paused', migration: 'postcopy-paused' }, /keep both/, /part of its memory/],
] as const)(
  'a committed guest that was never let run is told of at every start: %o',
  async (seen, remedy, why) => {
    await journal('run', 'started', 'ready', 'run');
    for (let start = 0; start < 2; start += 1) {
      expect(await toldOf(seen)).toMatchObject([
        {
          ...{ level: 'error', session: 'run', guest: GUEST, code: 'E_LINK_LOST', guestRunsOn: 'neither' },
          remedy: expect.stringMatching(remedy),
          msg: expect.stringMatching(why),
        },
      ]);
    }
    expect(await last('run')).toBe('run');
  },
);

test('a committed guest that cannot be looked at is told of, and one that runs or is gone is not', async () => {
  await journal('run', 'started', 'ready', 'run');
  expect(await toldOf({ found: 'kept', why: 'another client holds the monitor' })).toMatchObject([
    { code: 'E_GUEST_FAILED', guestRunsOn: 'unknown', msg: expect.stringContaining('another client') },
  ]);
  expect(await toldOf({ found: 'here', status: 'running', migration: 'completed' })).toEqual([]);
  expect(await toldOf({ found: 'gone' })).toEqual([]);
});
