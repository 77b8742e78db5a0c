import { describe, expect, it } from 'vitest';
import { destDeadline, destToPostcopy, startDest, stepDest } from '../../src/switchover/dest.ts';
import type { DestEventIn } from '../../src/switchover/dest-state.ts';
import { sourceDeadline, sourceToPostcopy, startSource, stepSource } from '../../src/switchover/source.ts';
import type { SourceAction, SourceEvent } from '../../src/switchover/source-state.ts';
import { millis } from '../../src/units.ts';

const sourceLimits = { readyMs: 1000, runningMs: 2000 };
const destLimits = { loadMs: 1000, outcomeMs: 2000 };

const ready: SourceEvent = { type: 'message', message: { type: 'ready' } };
const running: SourceEvent = { type: 'message', message: { type: 'running', atMs: millis(7) } };
const written = (record: 'sealed' | 'committed' | 'done'): SourceEvent => ({
  type: 'journal-written',
  record,
});
const linkLost = { type: 'link-lost', code: 'E_LINK_LOST', why: 'The link is gone.' } as const;

function source(mode: 'precopy' | 'postcopy', ...events: SourceEvent[]) {
  let state = startSource(mode, sourceLimits, millis(0)).state;
  let actions: readonly SourceAction[] = [];
  for (const event of events) ({ state, actions } = stepSource(state, event, millis(10)));
  return { state, actions };
}

const dest = (...events: DestEventIn[]) => destOf('precopy', events);
const destInPostcopy = (...events: DestEventIn[]) => destOf('postcopy', events);

function destOf(mode: 'precopy' | 'postcopy', events: readonly DestEventIn[]) {
  let step = startDest(mode, destLimits, millis(0));
  for (const event of events) step = stepDest(step.state, event, millis(10));
  return step;
}

const toSealed = [{ type: 'state-complete' }, written('sealed')] as const;
const toCommitted = [...toSealed, { type: 'stream-end' }, ready, written('committed')] as const;
const toReady: DestEventIn[] = [
  { type: 'message', message: { type: 'sealed' } },
  { type: 'guest-loaded' },
  { type: 'journal-written', record: 'ready' },
];

describe('the source', () => {
  it('does not commit in pre-copy before its hypervisor has let go', () => {
    const waiting = source('precopy', ...toSealed, ready);
    expect(waiting).toMatchObject({ state: { phase: 'sealed' }, actions: [] });
    const after = stepSource(waiting.state, { type: 'stream-end' }, millis(20));
    expect(after.actions).toEqual([{ type: 'journal', record: 'committed' }]);
  });

  it('commits in post-copy with pages still to come', () => {
    expect(source('postcopy', ...toSealed, ready).actions).toEqual([
      { type: 'journal', record: 'committed' },
    ]);
  });

  it('says commit only when the commit is on disk', () => {
    expect(source('precopy', ...toCommitted).actions).toEqual([
      { type: 'send', message: { type: 'commit' } },
    ]);
  });

  it('rolls back and tells the destination when the link is lost before the commit', () => {
    const lost = source('precopy', ...toSealed, linkLost);
    expect(lost.actions).toEqual([
      { type: 'send', message: { type: 'discard', why: 'The link is gone.' } },
      { type: 'rollback' },
    ]);
    const back = stepSource(lost.state, { type: 'rolled-back' }, millis(30));
    expect(back.actions[0]).toMatchObject({ outcome: 'failed', code: 'E_LINK_LOST', guestRunsOn: 'source' });
  });

  const tookBack: SourceEvent = { type: 'failed', code: 'E_GUEST_FAILED', why: 'It has its guest back.' };
  it('does not say a commit before whose being on disk its hypervisor failed, and rolls back', () => {
    const failed = source('precopy', ...toSealed, { type: 'stream-end' }, ready, tookBack);
    expect(failed.actions).toEqual([
      { type: 'send', message: { type: 'discard', why: 'It has its guest back.' } },
      { type: 'journal', record: 'rolling-back' },
    ]);
    const late = stepSource(failed.state, written('committed'), millis(20));
    expect(late).toMatchObject({ state: { phase: 'uncommitting' }, actions: [] });
    const proven = stepSource(late.state, { type: 'journal-written', record: 'rolling-back' }, millis(21));
    const back = stepSource(proven.state, { type: 'rolled-back' }, millis(22));
    expect(back.actions[0]).toMatchObject({
      outcome: 'failed',
      code: 'E_GUEST_FAILED',
      guestRunsOn: 'source',
    });
  });

  it('needs no hypervisor of a pre-copy that is being committed', () => {
    const ended: SourceEvent = { type: 'guest-gone', code: 'E_GUEST_GONE', why: 'It ended.' };
    expect(source('precopy', ...toSealed, { type: 'stream-end' }, ready, ended).actions).toEqual([]);
    expect(source('postcopy', ...toSealed, ready, ended).state.phase).toBe('uncommitting');
  });

  it('tells what is known better of a failure once the guest runs again', () => {
    const cause = { code: 'E_CANCELLED', why: 'Somebody else aborted it.' } as const;
    const back = source('precopy', linkLost, { type: 'rolled-back', cause });
    expect(back).toMatchObject({
      state: { phase: 'rolled-back', cause },
      actions: [{ outcome: 'cancelled', code: 'E_CANCELLED', why: cause.why }, { type: 'journal' }],
    });
  });

  it('can be cancelled before the commit and no longer after it', () => {
    const early = source('precopy', { type: 'cancel' }, { type: 'rolled-back' });
    expect(early.actions[0]).toMatchObject({ outcome: 'cancelled' });
    const late = source('precopy', ...toCommitted, { type: 'cancel' });
    expect(late.actions).toMatchObject([{ type: 'note', text: expect.stringMatching(/no longer/) }]);
  });

  it('calls for attention once, and never rolls back, when the link is lost after the commit', () => {
    const lost = source('precopy', ...toCommitted, linkLost);
    expect(lost.actions).toMatchObject([{ type: 'report', outcome: 'attention', guestRunsOn: 'unknown' }]);
    expect(stepSource(lost.state, linkLost, millis(40)).actions).toEqual([]);
    const again = stepSource(lost.state, { type: 'linked' }, millis(50));
    expect(again.actions).toEqual([{ type: 'send', message: { type: 'commit' } }]);
  });

  it('waits for the last page in post-copy before it forgets the guest', () => {
    const finishing = source('postcopy', ...toSealed, ready, written('committed'), running);
    expect(finishing).toMatchObject({ state: { phase: 'finishing' }, actions: [] });
    const closing = stepSource(
      finishing.state,
      { type: 'message', message: { type: 'complete' } },
      millis(60),
    );
    expect(closing.actions).toEqual([{ type: 'journal', record: 'done' }]);
    const done = stepSource(closing.state, written('done'), millis(61));
    expect(done.actions).toMatchObject([{ type: 'forget' }, { outcome: 'completed', guestRunsOn: 'dest' }]);
  });

  it('has no post-copy finished that has lost its guest on either host', () => {
    const why = 'The domain ended.';
    const lost = (type: 'guest-gone' | 'failed') =>
      source('postcopy', ...toSealed, ready, written('committed'), running, {
        type,
        code: 'E_GUEST_GONE',
        why,
      }).actions[0] as { readonly remedy: string };
    expect(lost('guest-gone')).toMatchObject({ outcome: 'attention', guestRunsOn: 'dest' });
    expect(lost('failed')).toMatchObject({ outcome: 'attention', guestRunsOn: 'neither', why });
    expect(lost('guest-gone').remedy).toMatch(/end it there .* start it from its disks/);
    expect(lost('failed').remedy).toMatch(/must never run: end it .* from its disks/);
  });

  describe('when the guest does not run on the destination', () => {
    const slow: SourceEvent = { type: 'tick' };
    const why = 'The disk is locked.';
    const failed: SourceEvent = {
      type: 'message',
      message: { type: 'run-failed', code: 'E_GUEST_FAILED', why },
    };
    const attention = { type: 'report', outcome: 'attention' };

    it.each([
      ['late', slow, 'unknown'],
      ['refused', failed, 'neither'],
    ] as const)('%s, the post-copy goes on until all was sent', (_, event, guestRunsOn) => {
      const committed = source('postcopy', ...toSealed, ready, written('committed'));
      const late = stepSource(committed.state, event, millis(5000));
      expect(late.actions).toMatchObject([{ type: 'note', text: expect.stringMatching(/goes on sending/) }]);
      expect(sourceDeadline(late.state)).toBeUndefined();
      expect(stepSource(late.state, event, millis(6000)).actions).toEqual([]);
      const sent = stepSource(late.state, { type: 'stream-end' }, millis(7000));
      expect(sent.actions).toMatchObject([{ ...attention, guestRunsOn }]);
      const ran = stepSource(late.state, running, millis(7000));
      expect(ran).toMatchObject({ state: { phase: 'finishing' }, actions: [] });
      expect(stepSource(late.state, linkLost, millis(7000)).actions).toMatchObject([attention]);
    });

    it.each([slow, failed])('the operator of a pre-copy is called at once', (event) => {
      const { state } = source('precopy', ...toCommitted);
      expect(stepSource(state, event, millis(5000)).actions).toMatchObject([attention]);
    });
  });

  it('rolls back when the destination is not ready in time', () => {
    const sealed = source('precopy', ...toSealed);
    expect(sourceDeadline(sealed.state)).toBe(1010);
    expect(stepSource(sealed.state, { type: 'tick' }, millis(1009)).actions).toEqual([]);
    expect(stepSource(sealed.state, { type: 'tick' }, millis(1010)).state.phase).toBe('rolling-back');
  });

  it('turns to post-copy only while it copies', () => {
    expect(sourceToPostcopy(source('precopy').state).mode).toBe('postcopy');
    expect(sourceToPostcopy(source('precopy', ...toSealed).state).mode).toBe('precopy');
  });
});

describe('the destination', () => {
  it('promises only when its promise is on disk', () => {
    expect(dest(...toReady.slice(0, 2)).actions).toEqual([{ type: 'journal', record: 'ready' }]);
    expect(dest(...toReady).actions).toEqual([{ type: 'send', message: { type: 'ready' } }]);
  });

  it('keeps a ready guest paused when the link is lost or nothing is heard', () => {
    const lost = dest(...toReady, linkLost);
    expect(lost).toMatchObject({ state: { phase: 'ready' }, actions: [{ outcome: 'attention' }] });
    const silent = dest(...toReady);
    expect(destDeadline(silent.state)).toBe(2010);
    const late = stepDest(silent.state, { type: 'tick' }, millis(2010));
    expect(late).toMatchObject({ state: { phase: 'ready' }, actions: [{ outcome: 'attention' }] });
  });

  it('discards the guest when the link is lost before it has promised anything', () => {
    expect(dest(toReady[0]!, linkLost).actions).toEqual([{ type: 'discard-guest' }]);
  });

  it('runs the guest when the commit is on disk, and announces it', () => {
    const accepted = dest(...toReady, { type: 'message', message: { type: 'commit' } });
    expect(accepted.actions).toEqual([{ type: 'journal', record: 'run' }]);
    const starting = stepDest(accepted.state, { type: 'journal-written', record: 'run' }, millis(20));
    expect(starting.actions).toEqual([{ type: 'run-guest' }]);
    const ran = stepDest(starting.state, { type: 'guest-running', atMs: millis(21) }, millis(22));
    expect(ran.actions).toEqual([
      { type: 'send', message: { type: 'running', atMs: 21 } },
      { type: 'announce' },
    ]);
  });

  const runIsOnDisk = { type: 'journal-written', record: 'run' } as const;
  it.each([
    ['accepting', [linkLost, runIsOnDisk]],
    ['starting', [runIsOnDisk, linkLost]],
  ] as const)(
    'tells of a link that was lost while %s when the guest runs with pages missing',
    (_, events) => {
      const commit: DestEventIn = { type: 'message', message: { type: 'commit' } };
      const ran = { type: 'guest-running', atMs: millis(21) } as const;
      const attention = { type: 'report', outcome: 'attention', code: 'E_LINK_LOST', guestRunsOn: 'dest' };
      const told = destInPostcopy(...toReady, commit, ...events, ran);
      expect(told).toMatchObject({
        state: { phase: 'running' },
        actions: [{}, { type: 'announce' }, attention],
      });
      expect(stepDest(told.state, linkLost, millis(30)).actions).toEqual([]);
      // Nothing is missing there.
      expect(dest(...toReady, commit, ...events, ran).actions).toHaveLength(2);
      const mended = destInPostcopy(...toReady, commit, ...events, { type: 'linked' }, ran);
      expect(mended.actions).toHaveLength(2);
    },
  );

  it('does not run the guest while it cannot write its journal, and does when it can again', () => {
    const commit: DestEventIn = { type: 'message', message: { type: 'commit' } };
    const failed = dest(...toReady, commit, { type: 'journal-failed', record: 'run' });
    expect(failed.actions).toMatchObject([
      { type: 'send', message: { type: 'run-failed', code: 'E_JOURNAL' } },
      { outcome: 'attention', code: 'E_JOURNAL' },
    ]);
    expect(stepDest(failed.state, { type: 'retry' }, millis(30)).actions).toEqual([
      { type: 'journal', record: 'run' },
    ]);
  });

  it('never discards a guest that was committed to it', () => {
    const discard: DestEventIn = { type: 'message', message: { type: 'discard', why: 'x' } };
    const commit: DestEventIn = { type: 'message', message: { type: 'commit' } };
    expect(dest(...toReady, commit, discard)).toMatchObject({
      state: { phase: 'accepting' },
      actions: [{ type: 'report', code: 'E_PROTOCOL' }],
    });
  });

  describe('with a post-copy that the source can never take back', () => {
    const final = (...events: DestEventIn[]) => {
      const receiving = { ...dest(), state: destToPostcopy(dest().state, { final: true }) };
      return events.reduce(({ state }, event) => stepDest(state, event, millis(10)), receiving);
    };
    const discard: DestEventIn = { type: 'message', message: { type: 'discard', why: 'x' } };
    const loaded: DestEventIn = { type: 'guest-loaded' };

    it.each([
      ['the link is lost before it is promised', [loaded, linkLost]],
      ['the source gives up before it is promised', [loaded, discard]],
      ['the link is lost when it is promised', [...toReady, linkLost]],
      ['the source gives up when it is promised', [...toReady, discard]],
    ] as const)('runs the guest where it is loaded and %s, and says so', (_, events) => {
      const accepted = final(...events);
      expect(accepted.actions).toEqual([{ type: 'journal', record: 'run' }]);
      const ran = [runIsOnDisk, { type: 'guest-running', atMs: millis(21) } as const].reduce(
        ({ state }, event) => stepDest(state, event, millis(22)),
        accepted,
      );
      expect(ran.actions.at(-1)).toMatchObject({ outcome: 'attention', guestRunsOn: 'dest' });
    });

    it.each([linkLost, discard])('ends a guest that was never loaded', (event) => {
      expect(final(event).actions).toEqual([{ type: 'discard-guest' }]);
    });

    it('keeps it paused while only the source is silent', () => {
      expect(stepDest(final(...toReady).state, { type: 'tick' }, millis(2010)).state.phase).toBe('ready');
    });
  });

  it('turns to post-copy only while it receives', () => {
    expect(destToPostcopy(dest().state, { final: false }).mode).toBe('postcopy');
    expect(destToPostcopy(dest(...toReady).state, { final: false }).mode).toBe('precopy');
  });
});
