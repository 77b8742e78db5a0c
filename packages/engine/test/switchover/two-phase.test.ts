import { describe, expect, it } from 'vitest';
import { type Move, moves, newWorld, violation, type World } from './model.ts';

const modes = ['precopy', 'postcopy'] as const;

/** Everything is repaired and nothing fails any more: where does it end? */
function heal(start: World): World {
  let world = start;
  for (;;) {
    const before = JSON.stringify(world);
    for (const { name } of moves(world)) {
      const move = moves(world).find((candidate) => candidate.name === name);
      if (move && !move.bad) world = after(world, move);
    }
    if (JSON.stringify(world) === before) return world;
  }
}

function after(world: World, move: Move): World {
  const next = { ...world };
  move.make(next);
  return next;
}

/** What must hold when all is repaired. */
function endsWrong(world: World): string | null {
  const broken = violation(world);
  if (broken) return broken;
  const committed = world.toDest.includes('commit');
  if (world.destGuest === 'running') {
    return world.source?.phase === 'done' && world.dest?.phase === 'done'
      ? null
      : 'a running guest is not done';
  }
  if (world.sourceGuest === 'running') {
    if (world.source?.phase !== 'rolled-back') return 'the source runs the guest and does not know';
    return world.destGuest === 'dead' ? null : 'something is left on the destination';
  }
  if (!committed && world.sourceGuest === 'paused') return 'the guest stands still on the source';
  if (committed && world.destGuest === 'paused') return 'the guest stands still on the destination';
  return null;
}

describe('the two-phase commit', () => {
  for (const mode of modes) {
    it(`ends with the guest on the destination when nothing fails (${mode})`, () => {
      let world = newWorld(mode);
      const boring = /linked|again|restarts|hears of it/;
      for (let turn = 0; turn < 40; turn += 1) {
        const move = moves(world).filter((candidate) => !candidate.bad && !boring.test(candidate.name));
        for (const { name } of move) {
          const found = moves(world).find((candidate) => candidate.name === name);
          if (found) world = after(world, found);
          expect(violation(world)).toBeNull();
        }
      }
      expect(world).toMatchObject({ sourceGuest: 'dead', destGuest: 'running' });
      expect(world.sourceJournal).toEqual(['started', 'sealed', 'committed', 'done']);
      expect(world.destJournal).toEqual(['started', 'ready', 'run', 'done']);
    });

    it(`never runs two guests and always mends, in every world that failures can reach (${mode})`, () => {
      const start = newWorld(mode);
      const seen = new Set([JSON.stringify(start)]);
      let frontier = [start];
      while (frontier.length > 0) {
        const next: World[] = [];
        for (const world of frontier) {
          for (const move of moves(world)) {
            const reached = after(world, move);
            const key = JSON.stringify(reached);
            if (seen.has(key)) continue;
            seen.add(key);
            const broken = violation(reached);
            if (broken) throw new Error(`${broken} after "${move.name}" in ${JSON.stringify(world)}`);
            const wrong = seen.size % 8 === 0 ? endsWrong(heal(reached)) : null;
            if (wrong)
              throw new Error(`${wrong} when mended after "${move.name}" in ${JSON.stringify(world)}`);
            next.push(reached);
          }
        }
        frontier = next;
      }
      expect(seen.size).toBeGreaterThan(10_000);
    }, 120_000);
  }
});
