import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import { expect, test } from 'vitest';
import { Causes } from '../src/causes.ts';

const report: SwitchoverReport = {
  type: 'report',
  outcome: 'failed',
  code: 'E_TIMEOUT',
  why: 'The disk is full.',
  guestRunsOn: 'source',
  remedy: 'start it again',
};

const peer = {
  code: 'E_NO_SPACE',
  message: 'The disk is full.',
  side: 'dest' as const,
  phase: 'precopy',
  guestRunsOn: 'unknown' as const,
  remedy: 'make room',
};

test('where nobody knows more, the machine is right', () => {
  expect(new Causes().explain(report, 'E_TIMEOUT', 'precopy')).toEqual({
    code: 'E_TIMEOUT',
    message: 'The disk is full.',
    side: 'source',
    phase: 'precopy',
    guestRunsOn: 'source',
    remedy: 'start it again',
  });
});

test('whoever met a failure says what it was, if that is why', () => {
  const causes = new Causes();
  causes.met({ code: 'E_STREAM', message: 'The disk is full.', side: 'source', remedy: 'look at it' });
  causes.met({ code: 'E_INTERNAL', message: 'The second is no cause.', side: 'source', remedy: '' });
  expect(causes.explain(report, 'E_TIMEOUT', 'precopy')).toMatchObject({
    code: 'E_STREAM',
    remedy: 'look at it; start it again',
  });
  expect(causes.explain({ ...report, why: 'Something else.' }, 'E_TIMEOUT', 'precopy')).toMatchObject({
    code: 'E_TIMEOUT',
    remedy: 'start it again',
  });
});

test("the destination's own words go before this side's, until it runs the guest", () => {
  const causes = new Causes();
  causes.met({ code: 'E_STREAM', message: 'The disk is full.', side: 'source', remedy: 'look at it' });
  causes.peerMet(peer);
  expect(causes.explain(report, 'E_TIMEOUT', 'precopy')).toMatchObject({
    code: 'E_NO_SPACE',
    side: 'dest',
    remedy: 'make room; start it again',
  });
  causes.peerRuns();
  expect(causes.peer).toBeUndefined();
  expect(causes.explain(report, 'E_TIMEOUT', 'precopy')).toMatchObject({ code: 'E_STREAM', side: 'source' });
});

test.each([
  ['E_NATIVE', 'E_NATIVE'],
  ['E_OF_A_LATER_VERSION', 'E_PROTOCOL'],
])("the destination's %s is told as %s", (code, told) => {
  const causes = new Causes();
  causes.peerMet({ ...peer, code });
  expect(causes.explain(report, 'E_TIMEOUT', 'precopy').code).toBe(told);
});

test('a failure is told with the phase in which the migration was given up', () => {
  const causes = new Causes();
  causes.givenUp('switchover');
  causes.givenUp('rollback');
  expect(causes.explain(report, 'E_TIMEOUT', 'rollback').phase).toBe('switchover');
});

test('a guest that ended runs nowhere', () => {
  const causes = new Causes();
  causes.peerMet(peer);
  causes.guestEnded();
  expect(causes.explain(report, 'E_TIMEOUT', 'rollback')).toMatchObject({
    code: 'E_GUEST_GONE',
    guestRunsOn: 'neither',
    remedy: expect.stringContaining('Start the guest again'),
  });
});
