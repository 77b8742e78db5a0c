import { GuestError } from '@vmferry/engine/errors';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { expect, test } from 'vitest';
import { type Attempt, finish } from '../../../src/libvirt/source/finishing.ts';

const halted: DomainState = { state: 'paused', reason: 'post-copy-failed' };
const refused = new GuestError('E_GUEST_FAILED', "job 'migration in' failed in post-copy phase", 'none');

interface Told {
  readonly answer: unknown;
  readonly ram?: { readonly destroyed: boolean; readonly bytesRead: number };
  readonly status?: string;
}

/** A domain whose every attempt ends as told; `states` come one after the other, the last for ever. */
function domain(attempts: readonly Told[], states: readonly (DomainState | undefined)[], sent = false) {
  const asked: Attempt[] = [];
  const notes: string[] = [];
  const left = [...states];
  const cuts = { count: 0 };
  return {
    asked,
    notes,
    cuts,
    run: () =>
      finish(
        {
          nameThere: 'web1-there',
          state: () => Promise.resolve(left.length > 1 ? left.shift() : left[0]),
          ready: () => Promise.resolve(!sent),
          ask: () => {
            const { answer, ram, status } = attempts[asked.length]!;
            const attempt: Attempt = {
              answer: Promise.resolve(answer),
              ram: () => ram,
              status: () => status,
              refused: () => undefined,
              cut: async () => {
                cuts.count += 1;
              },
            };
            asked.push(attempt);
            return attempt;
          },
        },
        (note) => notes.push(note),
      ),
  };
}

test('a good answer ends it', async () => {
  const { run, asked, notes } = domain([{ answer: undefined }], [halted]);
  await run();
  expect([asked.length, notes]).toEqual([1, []]);
});

test('an answer that it failed is not believed while QEMU goes on, nor while it has not said how it ended', async () => {
  const ended = { destroyed: true, bytesRead: 7 };
  const { run, asked, notes } = domain([{ answer: refused, ram: ended }], [halted, halted, undefined]);
  await run();
  expect([asked.length, notes]).toEqual([1, []]);
});

test('a domain that stays halted is asked for again, and the report says so', async () => {
  const broken = { destroyed: true, bytesRead: 7 };
  const stays = domain(
    [{ answer: refused }, { answer: refused, ram: broken, status: 'postcopy-paused' }, { answer: undefined }],
    [halted],
  );
  await stays.run();
  expect(stays.asked).toHaveLength(3);
  expect(stays.cuts.count).toBe(2);
  expect(stays.notes).toEqual([
    expect.stringMatching(/asked once .*failed in post-copy phase\. It is asked again/),
    expect.stringMatching(/asked 2 times/),
  ]);
}, 10_000);

test('a domain that stays halted whatever is tried is left to the operator', async () => {
  const stays = domain([{ answer: refused }, { answer: refused }, { answer: refused }], [halted]);
  await expect(stays.run()).rejects.toBe(refused);
  expect(stays.asked).toHaveLength(3);
}, 10_000);

test.each([
  { state: 'running', reason: 'unpaused' },
  { state: 'paused', reason: 'user' },
] as const)('of a domain that is $state ($reason) nothing more is asked', async (state) => {
  const other = domain([{ answer: refused }], [state]);
  await expect(other.run()).rejects.toBe(refused);
  expect(other.asked).toHaveLength(1);
});

test('a domain whose QEMU has sent all is not asked for: libvirt ends it', async () => {
  const sent = domain([], [halted, undefined], true);
  await sent.run();
  expect(sent.asked).toHaveLength(0);
});
