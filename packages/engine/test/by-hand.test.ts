import { expect, test } from 'vitest';
import { byHand, shellWord } from '../src/by-hand.ts';
import { startDest, stepDest } from '../src/switchover/dest.ts';
import { startSource, stepSource } from '../src/switchover/source.ts';
import type { SourceEvent } from '../src/switchover/source-state.ts';
import { millis } from '../src/units.ts';

const here = byHand('libvirt:web 1');
const there = byHand('libvirt:web1-there?connect=qemu+unix:///system?socket=/run/x');

test('a guest of libvirt’s is taken by hand with virsh, under its name on the host', () => {
  expect(here).toEqual({
    run: "virsh resume 'web 1'",
    end: "virsh destroy 'web 1'",
    state: "virsh domstate --reason 'web 1'",
    finish: 'finish it with "vmferry resume \'libvirt:web 1\'"',
  });
  expect(there.end).toBe("virsh -c 'qemu+unix:///system?socket=/run/x' destroy web1-there");
});

test.each(['qemu:/run/vm/web1.sock', 'sim:web1'])('%s is taken with what QEMU understands', (guest) => {
  expect(byHand(guest)).toMatchObject({ run: 'QEMU: cont', end: 'QEMU: quit' });
});

test('a name is one word of the shell’s', () => {
  expect(['web1', 'it’s; rm', "a'b", ''].map(shellWord)).toEqual(['web1', "'it’s; rm'", "'a'\\''b'", "''"]);
});

const limits = { readyMs: 1000, runningMs: 2000, loadMs: 1000, outcomeMs: 2000 };
const failure = { code: 'E_GUEST_FAILED', why: 'It does not answer.' } as const;

test('the remedies of a source name the commands of both hosts', () => {
  const remedy = (...events: SourceEvent[]): string => {
    let step = startSource('precopy', limits, millis(0), { here, there });
    for (const event of events) step = stepSource(step.state, event, millis(10));
    const [report] = step.actions;
    return report?.type === 'report' ? report.remedy : '';
  };
  const back = remedy({ type: 'failed', ...failure }, { type: 'rollback-failed', ...failure });
  expect(back).toContain(`(${there.end})`);
  expect(back).toContain(`(${here.run})`);
  const committed = remedy(
    { type: 'state-complete' },
    { type: 'journal-written', record: 'sealed' },
    { type: 'stream-end' },
    { type: 'message', message: { type: 'ready' } },
    { type: 'journal-written', record: 'committed' },
    { type: 'link-lost', ...failure },
  );
  expect(committed).toContain(`(${there.run})`);
});

test('the remedies of a destination name its own', () => {
  const given = stepDest(
    startDest('precopy', limits, millis(0), here).state,
    { type: 'failed', ...failure },
    millis(1),
  );
  const stuck = stepDest(given.state, { type: 'discard-failed', ...failure }, millis(2));
  expect(stuck.actions).toMatchObject([{ remedy: expect.stringContaining(`(${here.end})`) }]);
});
