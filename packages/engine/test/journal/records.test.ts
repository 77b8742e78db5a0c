import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  encodeRecord,
  JournalError,
  type JournalRecord,
  modeOf,
  outcomeOf,
  parseJournal,
  sourceRecordStates,
} from '../../src/journal/records.ts';

const record = (state: (typeof sourceRecordStates)[number], why?: string): JournalRecord => ({
  v: 1,
  session: 'S1',
  guest: 'sim:böse "guest"',
  role: 'source',
  state,
  at: 1_760_000_000_000,
  ...(why === undefined ? {} : { why }),
});

const text =
  encodeRecord(record('started')) + encodeRecord(record('sealed')) + encodeRecord(record('committed'));

describe('the journal', () => {
  it('gives back what was written', () => {
    const state = fc.constantFrom(...sourceRecordStates);
    const list = fc.array(fc.tuple(state, fc.option(fc.string({ unit: 'binary' }), { nil: undefined })));
    fc.assert(
      fc.property(list, (entries) => {
        const records = entries.map(([state, why]) => record(state, why));
        const parsed = parseJournal(records.map(encodeRecord).join(''));
        expect(parsed.records).toEqual(records);
        expect(parsed.tornTail).toBe(false);
      }),
    );
  });

  it('is one line of JSON for each record', () => {
    for (const line of text.trimEnd().split('\n'))
      expect(JSON.parse(line)).toMatchObject({ v: 1, session: 'S1' });
  });

  it('reads up to a torn tail, wherever it tore', () => {
    const bytes = Buffer.from(text);
    for (let end = 0; end <= bytes.length; end += 1) {
      const whole = bytes.subarray(0, bytes.subarray(0, end).lastIndexOf(10) + 1);
      const parsed = parseJournal(bytes.subarray(0, end).toString());
      const good = whole.length;
      expect(parsed.goodBytes).toBe(good);
      expect(parsed.tornTail).toBe(good < end);
      expect(parsed.records.length).toBe(whole.toString().split('\n').length - 1);
    }
  });

  it('takes a tail of zeros, as a crash leaves it, for torn', () => {
    expect(parseJournal(`${text}\0\0\0\0`)).toMatchObject({ tornTail: true, records: { length: 3 } });
  });

  it('never reads a complete line that was changed', () => {
    for (let at = 0; at < text.length - 1; at += 1) {
      if (text[at] === '\n') continue;
      const changed = `${text.slice(0, at)}${text[at] === 'x' ? 'y' : 'x'}${text.slice(at + 1)}`;
      expect(() => parseJournal(changed)).toThrow(JournalError);
    }
  });

  it('refuses the records of two migrations in one file', () => {
    const other = encodeRecord({ ...record('sealed'), session: 'S2' });
    expect(() => parseJournal(text + other)).toThrow(/another migration/);
  });

  it('refuses a state that the role does not have', () => {
    expect(() => encodeRecord({ ...record('sealed'), role: 'dest' } as JournalRecord)).toThrow();
  });

  it('tells the outcome from the last record', () => {
    expect(outcomeOf([])).toEqual({ role: 'none', outcome: 'not-started' });
    expect(outcomeOf([record('started'), record('sealed')]).outcome).toBe('undecided');
    expect(outcomeOf(parseJournal(text).records).outcome).toBe('committed');
    expect(outcomeOf([record('committed'), record('rolling-back')]).outcome).toBe('rolled-back');
    const ready: JournalRecord = { ...record('started'), role: 'dest', state: 'ready' };
    expect(outcomeOf([ready])).toEqual({ role: 'dest', outcome: 'in-doubt' });
  });

  it('remembers the last mode, and waits for more when none is known', () => {
    expect(modeOf([record('started')])).toBe('postcopy');
    expect(
      modeOf([
        { ...record('started'), mode: 'postcopy' },
        { ...record('sealed'), mode: 'precopy' },
      ]),
    ).toBe('precopy');
  });
});
