/**
 * A world for the two halves of the commit: two agents that may crash and come back from their journals,
 * two hypervisors that may die, and a network that loses, delays, repeats and reorders everything (a
 * message that was sent once may arrive at any time later, any number of times, or never).
 */
import type { DestRecordState, JournalRecord, SourceRecordState } from '../../src/journal/records.ts';
import { recoverDest, startDest, stepDest } from '../../src/switchover/dest.ts';
import type { DestEventIn, DestState } from '../../src/switchover/dest-state.ts';
import type { SwitchoverMode, ToDest, ToSource } from '../../src/switchover/protocol.ts';
import { recoverSource, startSource, stepSource } from '../../src/switchover/source.ts';
import type { SourceEvent, SourceState } from '../../src/switchover/source-state.ts';
import { millis } from '../../src/units.ts';

const LIMITS = { readyMs: 1000, runningMs: 1000, loadMs: 1000, outcomeMs: 1000 };
const NOW = millis(0);
const LATE = millis(1e6);
const WHY = { code: 'E_INTERNAL', why: 'x' } as const;

export interface World {
  mode: SwitchoverMode;
  source: SourceState | null;
  dest: DestState | null;
  sourceJournal: SourceRecordState[];
  destJournal: DestRecordState[];
  sourceWriting: SourceRecordState | null;
  destWriting: DestRecordState | null;
  /** The guest on each hypervisor. */
  sourceGuest: 'running' | 'paused' | 'dead';
  destGuest: 'empty' | 'paused' | 'running' | 'dead';
  stateComplete: boolean;
  streamEnded: boolean;
  rollingBack: boolean;
  running: boolean;
  discarding: boolean;
  toDest: ToDest['type'][];
  toSource: ToSource['type'][];
  /** What must never happen, if it did. */
  broken: string | null;
}

export interface Move {
  readonly name: string;
  /** A move that only a failure makes. */
  readonly bad: boolean;
  readonly make: (world: World) => void;
}

export function newWorld(mode: SwitchoverMode): World {
  const world: World = {
    mode,
    source: null,
    dest: null,
    sourceJournal: [],
    destJournal: [],
    sourceWriting: null,
    destWriting: null,
    sourceGuest: 'running',
    destGuest: 'empty',
    stateComplete: false,
    streamEnded: false,
    rollingBack: false,
    running: false,
    discarding: false,
    toDest: [],
    toSource: [],
    broken: null,
  };
  actSource(world, startSource(mode, LIMITS, NOW));
  actDest(world, startDest(mode, LIMITS, NOW));
  return world;
}

/** Everything that can happen next. */
export function moves(world: World): Move[] {
  const list: Move[] = [];
  const good = (name: string, make: (world: World) => void) => list.push({ name, bad: false, make });
  const bad = (name: string, make: (world: World) => void) => list.push({ name, bad: true, make });
  sourceMoves(world, good, bad);
  destMoves(world, good, bad);
  return list;
}

type Add = (name: string, make: (world: World) => void) => void;

function sourceMoves(world: World, good: Add, bad: Add): void {
  if (world.sourceGuest !== 'dead') {
    bad('source hypervisor dies', (w) => {
      w.sourceGuest = 'dead';
    });
  }
  if (world.source === null) {
    good('source agent restarts', (w) => {
      w.streamEnded = true;
      actSource(w, recoverSource(recordsOf('source', w.mode, w.sourceJournal), LIMITS, NOW));
    });
    return;
  }
  bad('source agent crashes', (w) => {
    crashSource(w);
  });
  if (world.sourceWriting !== null) {
    bad('source agent crashes with its last record on disk', (w) => {
      keepSource(w);
      crashSource(w);
    });
    const record = world.sourceWriting;
    good(`source journals ${record}`, (w) => {
      keepSource(w);
      w.sourceWriting = null;
      source(w, { type: 'journal-written', record });
    });
    for (const onDisk of [false, true]) {
      bad(`source fails to journal ${record}${onDisk ? ' although it is on disk' : ''}`, (w) => {
        if (onDisk) keepSource(w);
        w.sourceWriting = null;
        source(w, { type: 'journal-failed', record });
      });
    }
  }
  for (const type of world.toSource) {
    good(`source hears ${type}`, (w) => source(w, { type: 'message', message: toSource(type) }));
  }
  if (!world.stateComplete && world.sourceGuest !== 'dead' && world.source.phase === 'copying') {
    good('source stops the guest and sends all', (w) => {
      w.sourceGuest = 'paused';
      w.stateComplete = true;
      source(w, { type: 'state-complete' });
    });
  }
  if (world.stateComplete && !world.streamEnded && world.sourceGuest !== 'dead') {
    if (world.mode === 'precopy' || world.destGuest === 'running') {
      good('source stream ends', (w) => {
        w.streamEnded = true;
        source(w, { type: 'stream-end' });
      });
    }
    // Until its migration is complete, a hypervisor in pre-copy restarts the guest when something fails.
    if (world.mode === 'precopy') {
      bad('source hypervisor gives up and restarts the guest', (w) => {
        w.sourceGuest = 'running';
        source(w, { type: 'guest-gone', ...WHY });
      });
    }
  }
  if (world.sourceGuest === 'dead')
    good('source hears of it', (w) => source(w, { type: 'guest-gone', ...WHY }));
  if (world.rollingBack) {
    good('source rolls back', (w) => {
      w.rollingBack = false;
      if (w.sourceGuest === 'dead') return source(w, { type: 'rollback-failed', ...WHY });
      w.sourceGuest = 'running';
      source(w, { type: 'rolled-back' });
    });
    bad('source cannot roll back', (w) => {
      w.rollingBack = false;
      source(w, { type: 'rollback-failed', ...WHY });
    });
    bad('source agent crashes in the roll-back', (w) => {
      if (w.sourceGuest !== 'dead') w.sourceGuest = 'running';
      crashSource(w);
    });
  }
  good('source is linked', (w) => source(w, { type: 'linked' }));
  good('source tries again', (w) => source(w, { type: 'retry' }));
  bad('source loses the link', (w) => source(w, { type: 'link-lost', ...WHY }));
  bad('source fails', (w) => source(w, { type: 'failed', ...WHY }));
  bad('source is cancelled', (w) => source(w, { type: 'cancel' }));
  bad('source runs out of time', (w) => source(w, { type: 'tick' }, LATE));
}

function destMoves(world: World, good: Add, bad: Add): void {
  if (world.destGuest !== 'dead') {
    bad('dest hypervisor dies', (w) => {
      w.destGuest = 'dead';
    });
  }
  if (world.dest === null) {
    good('dest agent restarts', (w) => {
      actDest(w, recoverDest(recordsOf('dest', w.mode, w.destJournal), LIMITS, NOW));
    });
    return;
  }
  bad('dest agent crashes', (w) => crashDest(w));
  if (world.destWriting !== null) {
    bad('dest agent crashes with its last record on disk', (w) => {
      keepDest(w);
      crashDest(w);
    });
    const record = world.destWriting;
    good(`dest journals ${record}`, (w) => {
      keepDest(w);
      w.destWriting = null;
      dest(w, { type: 'journal-written', record });
    });
    for (const onDisk of [false, true]) {
      bad(`dest fails to journal ${record}${onDisk ? ' although it is on disk' : ''}`, (w) => {
        if (onDisk) keepDest(w);
        w.destWriting = null;
        dest(w, { type: 'journal-failed', record });
      });
    }
  }
  for (const type of world.toDest) {
    good(`dest hears ${type}`, (w) => dest(w, { type: 'message', message: toDest(type) }));
  }
  if (world.stateComplete && world.destGuest === 'empty') {
    good('dest loads the guest', (w) => {
      w.destGuest = 'paused';
      dest(w, { type: 'guest-loaded' });
    });
  }
  if (world.destGuest === 'dead') good('dest hears of it', (w) => dest(w, { type: 'guest-gone', ...WHY }));
  if (world.running) {
    good('dest runs the guest', (w) => {
      w.running = false;
      if (w.destGuest === 'dead') return dest(w, { type: 'run-failed', ...WHY });
      w.destGuest = 'running';
      dest(w, { type: 'guest-running', atMs: NOW });
    });
    bad('dest cannot run the guest', (w) => {
      w.running = false;
      dest(w, { type: 'run-failed', ...WHY });
    });
    bad('dest agent crashes while it runs the guest', (w) => {
      if (w.destGuest !== 'dead') w.destGuest = 'running';
      crashDest(w);
    });
  }
  if (world.discarding) {
    good('dest discards the guest', (w) => {
      w.discarding = false;
      w.destGuest = 'dead';
      dest(w, { type: 'guest-discarded' });
    });
    bad('dest cannot discard the guest', (w) => {
      w.discarding = false;
      dest(w, { type: 'discard-failed', ...WHY });
    });
    bad('dest agent crashes while it discards', (w) => {
      w.destGuest = 'dead';
      crashDest(w);
    });
  }
  if (world.destGuest === 'running' || (world.mode === 'precopy' && world.destGuest === 'paused')) {
    good('dest has all pages', (w) => dest(w, { type: 'guest-complete' }));
  }
  good('dest is linked', (w) => dest(w, { type: 'linked' }));
  good('dest tries again', (w) => dest(w, { type: 'retry' }));
  bad('dest loses the link', (w) => dest(w, { type: 'link-lost', ...WHY }));
  bad('dest fails', (w) => dest(w, { type: 'failed', ...WHY }));
  bad('dest is cancelled', (w) => dest(w, { type: 'cancel' }));
  bad('dest runs out of time', (w) => dest(w, { type: 'tick' }, LATE));
}

/** Why this world must not be, or null. */
export function violation(world: World): string | null {
  if (world.broken !== null) return world.broken;
  if (world.sourceGuest === 'running' && world.destGuest === 'running') return 'two guests run';
  if (world.destGuest === 'running' && !world.sourceJournal.includes('committed')) {
    return 'the destination runs a guest that was not committed';
  }
  if (world.toDest.includes('commit') && world.sourceGuest === 'running' && world.destGuest !== 'dead') {
    return 'the source runs a guest that it has committed';
  }
  if (world.toSource.includes('discarded') && world.destGuest !== 'dead') {
    return 'the destination said that it discarded and holds a guest';
  }
  if (world.toSource.includes('ready') && !world.destJournal.includes('ready')) {
    return 'the destination promised without a record';
  }
  if (world.toDest.includes('commit') && !world.sourceJournal.includes('committed')) {
    return 'the source said commit without a record';
  }
  return null;
}

function source(world: World, event: SourceEvent, now = NOW): void {
  if (world.source !== null) actSource(world, stepSource(world.source, event, now));
}

function dest(world: World, event: DestEventIn, now = NOW): void {
  if (world.dest !== null) actDest(world, stepDest(world.dest, event, now));
}

function actSource(world: World, step: ReturnType<typeof stepSource>): void {
  world.source = { ...step.state, since: NOW, told: null };
  if ('cause' in world.source) world.source = { ...world.source, cause: WHY };
  if (world.source.phase === 'committed' && world.source.overdue)
    world.source = { ...world.source, overdue: { ...WHY, guestRunsOn: 'unknown' } };
  for (const [index, action] of step.actions.entries()) {
    switch (action.type) {
      case 'journal':
        if (index !== step.actions.length - 1) world.broken = 'an action follows a journal action';
        world.sourceWriting = action.record;
        if (action.record === 'committed' && world.mode === 'precopy' && !world.streamEnded) {
          world.broken = 'committed while the source could still restart the guest';
        }
        break;
      case 'send':
        world.toDest = insert(world.toDest, action.message.type);
        break;
      case 'rollback':
        world.rollingBack = true;
        break;
      case 'forget':
        world.sourceGuest = 'dead';
        break;
      case 'report':
        if (action.why === '') world.broken = 'a report without a reason';
        break;
    }
  }
}

function actDest(world: World, step: ReturnType<typeof stepDest>): void {
  world.dest = { ...step.state, since: NOW, told: null };
  if ('cause' in world.dest) world.dest = { ...world.dest, cause: WHY };
  for (const [index, action] of step.actions.entries()) {
    switch (action.type) {
      case 'journal':
        if (index !== step.actions.length - 1) world.broken = 'an action follows a journal action';
        world.destWriting = action.record;
        break;
      case 'send':
        world.toSource = insert(world.toSource, action.message.type);
        break;
      case 'run-guest':
        world.running = true;
        break;
      case 'discard-guest':
        if (world.destGuest === 'running') world.broken = 'a running guest is discarded';
        world.discarding = true;
        break;
      case 'report':
        if (action.why === '') world.broken = 'a report without a reason';
        break;
    }
  }
}

function crashSource(world: World): void {
  world.source = null;
  world.sourceWriting = null;
  world.rollingBack = false;
}

function crashDest(world: World): void {
  world.dest = null;
  world.destWriting = null;
  world.running = false;
  world.discarding = false;
}

function keepSource(world: World): void {
  const record = world.sourceWriting;
  if (record !== null && world.sourceJournal.at(-1) !== record)
    world.sourceJournal = [...world.sourceJournal, record];
}

function keepDest(world: World): void {
  const record = world.destWriting;
  if (record !== null && world.destJournal.at(-1) !== record)
    world.destJournal = [...world.destJournal, record];
}

function recordsOf(
  role: 'source' | 'dest',
  mode: SwitchoverMode,
  states: readonly (SourceRecordState | DestRecordState)[],
): JournalRecord[] {
  return states.map(
    (state) => ({ v: 1, session: 's', guest: 'g', mode, at: 0, role, state }) as JournalRecord,
  );
}

function insert<T extends string>(list: T[], item: T): T[] {
  return list.includes(item) ? list : [...list, item].sort();
}

function toDest(type: ToDest['type']): ToDest {
  return type === 'discard' ? { type, why: 'x' } : { type };
}

function toSource(type: ToSource['type']): ToSource {
  switch (type) {
    case 'running':
      return { type, atMs: NOW };
    case 'run-failed':
      return { type, ...WHY };
    case 'discarded':
      return { type, why: 'x' };
    default:
      return { type };
  }
}
