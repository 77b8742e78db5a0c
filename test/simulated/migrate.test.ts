import type { Strategy } from '@vmferry/engine/options';
import { afterEach, describe, expect, test } from 'vitest';
import { follow, when } from '../migrate/agents.ts';
import { definition, overriding, type Site, startSite, writesOn } from './support.ts';

const sites: Site[] = [];
afterEach(async () => {
  for (const site of sites.splice(0)) await site.close();
});

async function start(...args: Parameters<typeof startSite>): Promise<Site> {
  const site = await startSite(...args);
  sites.push(site);
  return site;
}

const SOUND = /^Verified: all \d+ pages and the device state are what the workload must have produced/;
const strategies: readonly Strategy[] = ['precopy', 'postcopy', 'hybrid', 'auto'];

const workloads: Readonly<Record<string, unknown>> = {
  idle: { kind: 'idle' },
  'uniform writer': { kind: 'uniform', pagesPerSec: 3000 },
  'zipf writer': { kind: 'zipf', pagesPerSec: 5000, exponent: 1.1 },
  'reader and burst': {
    kind: 'mix',
    parts: [
      { kind: 'read-mostly', readsPerSec: 2000, pagesPerSec: 200 },
      { kind: 'fork-bursts', pagesPerSec: 10, burstPages: 500, everySeconds: 0.2 },
    ],
  },
};

describe.each(Object.entries(workloads))('a guest that is a %s', (_name, workload) => {
  test.each(strategies)('arrives whole by %s', async (strategy) => {
    const site = await start(definition({ workload }));
    const source = site.source;
    const { report } = await follow(site.migrate({ strategy, streams: strategy === 'precopy' ? 3 : 1 }));
    expect(report).toMatchObject({ outcome: 'completed', error: null });
    expect(report.notes.filter((note) => SOUND.test(note))).toHaveLength(1);
    expect(report.downtimeMs).toBeGreaterThan(0);
    // Every page at least once, and in post-copy only once: also those that answered faults.
    const { raw, zero } = report.pages;
    expect(raw + zero).toBeGreaterThanOrEqual(6144);
    if (strategy === 'postcopy') expect(raw + zero).toBeLessThan(6144 + 1024);
    expect(source.running).toBe(false);
    expect(site.here.machine('g')).toBeUndefined();
    expect(site.dest.running).toBe(true);
    if (strategy === 'postcopy' && JSON.stringify(workload).includes('reads')) {
      expect(report.faults.count).toBeGreaterThan(0);
      expect(report.faults.maxMs).toBeGreaterThan(0);
      // What the agents saw is what the vCPUs went through.
      expect(site.dest.waits.count).toBeGreaterThan(0);
      expect(site.dest.waits.count).toBeLessThanOrEqual(report.faults.count * 2);
    }
  });
});

test.each([
  ['strided', { kind: 'strided', pagesPerSec: 3000, stride: 7 }],
  ['sequential', { kind: 'sequential', pagesPerSec: 3000 }],
  ['hot and cold', { kind: 'hot-and-cold', pagesPerSec: 4000, hotPages: 100, hotShare: 0.9 }],
  ['moving', { kind: 'moving', pagesPerSec: 3000, windowPages: 256, everySeconds: 0.1, stepPages: 100 }],
  [
    'phases',
    {
      kind: 'phases',
      phases: [
        { seconds: 0.1, workload: { kind: 'idle' } },
        { seconds: 0.1, workload: { kind: 'uniform', pagesPerSec: 20_000 } },
      ],
    },
  ],
] as const)('a %s writer arrives whole by hybrid', async (_name, workload) => {
  const site = await start(definition({ workload }));
  await writesOn(site.source, 100);
  const { report } = await follow(site.migrate({ strategy: 'hybrid' }));
  expect(report).toMatchObject({ outcome: 'completed', strategy: 'hybrid' });
  expect(report.notes).toContainEqual(expect.stringMatching(SOUND));
});

test('a guest moves there and back and there again, and its writes add up', async () => {
  const guest = definition({ workload: { kind: 'zipf', pagesPerSec: 4000, exponent: 1 } });
  const site = await start(guest);
  let writes = 0;
  for (const strategy of ['precopy', 'postcopy', 'hybrid'] as const) {
    const { report } = await follow(site.migrate({ strategy }));
    expect(report.outcome, JSON.stringify(report.error)).toBe('completed');
    const note = report.notes.find((text) => SOUND.test(text))!;
    const now = Number(/\((\d+) writes/.exec(note)?.[1]);
    expect(now).toBeGreaterThan(writes);
    writes = now;
    await writesOn(site.dest, 500);
    site.swap();
  }
});

test('a guest that writes faster than the link carries is moved by post-copy when rounds stall', async () => {
  const site = await start(definition({ workload: { kind: 'uniform', pagesPerSec: 60_000 } }));
  const { report } = await follow(
    site.migrate({ maxBandwidth: 40_000_000, maxDowntimeMs: 30, compress: 'off', onStall: 'postcopy' }),
  );
  expect(report).toMatchObject({ outcome: 'completed', strategy: 'hybrid' });
  expect(report.notes).toContainEqual(expect.stringMatching(SOUND));
}, 60_000);

test('a guest that stalls is slowed down where that was asked for', async () => {
  const site = await start(definition({ workload: { kind: 'uniform', pagesPerSec: 15_000 } }));
  const migration = site.migrate({
    strategy: 'precopy',
    maxBandwidth: 40_000_000,
    maxDowntimeMs: 50,
    compress: 'off',
    onStall: 'throttle',
  });
  const { report, events } = await follow(migration);
  expect(report).toMatchObject({ outcome: 'completed', strategy: 'precopy' });
  expect(events).toContainEqual(
    expect.objectContaining({ type: 'decision', what: expect.stringMatching(/throttle the guest by \d+ %/) }),
  );
  expect(report.notes).toContainEqual(expect.stringMatching(SOUND));
  // The throttle does not travel.
  await writesOn(site.dest, 4000);
}, 60_000);

test('a paused guest arrives paused', async () => {
  const site = await start(definition());
  await site.source.pause();
  const { report } = await follow(site.migrate());
  expect(report.outcome).toBe('completed');
  expect(site.dest.running).toBe(false);
});

test('a source that is to be kept stays paused, and is not moved from there again', async () => {
  const site = await start(definition());
  expect((await follow(site.migrate({ destroySource: false }))).report.outcome).toBe('completed');
  expect(site.source.running).toBe(false);
  const { report } = await follow(site.migrate());
  expect(report).toMatchObject({
    outcome: 'refused',
    error: { code: 'E_GUEST_BLOCKED', message: 'sim:g has left this host and must not run here again' },
  });
});

describe('refused before anything is touched', () => {
  test('a guest that is another on the destination', async () => {
    const site = await start(definition());
    const other = await start(definition({ seed: 2 }));
    const { report } = await follow(site.migrate({ to: other.agents.url }));
    expect(report).toMatchObject({
      outcome: 'refused',
      error: { code: 'E_GUEST_MISMATCH', side: 'dest', guestRunsOn: 'source' },
    });
    await writesOn(site.source, 100);
  });

  test('a guest that is on the destination already', async () => {
    const site = await start(definition());
    await site.there.source('g');
    const { report } = await follow(site.migrate());
    expect(report).toMatchObject({ outcome: 'refused', error: { code: 'E_GUEST_BUSY', side: 'dest' } });
  });

  test('a name that nobody has', async () => {
    const site = await start(definition());
    for (const request of [{ guest: 'sim:nobody' }, { destGuest: 'sim:nobody' }]) {
      const { report } = await follow(site.migrate(request));
      expect(report).toMatchObject({
        outcome: 'refused',
        error: {
          code: 'E_GUEST_UNREACHABLE',
          message: expect.stringContaining('there is no simulated guest "nobody" here; there are g'),
        },
      });
    }
  });
});

test('a guest whose migration was cancelled can be moved afterwards', async () => {
  const site = await start(definition());
  const first = site.migrate({ strategy: 'precopy', maxBandwidth: 4_000_000 });
  await when(first, (event) => event.type === 'phase' && event.phase === 'precopy');
  first.cancel();
  expect((await follow(first)).report.outcome).toBe('cancelled');
  expect((await follow(site.migrate())).report.outcome).toBe('completed');
});

test('a guest whose examination takes longer than other figures are waited for still gets its verdict', async () => {
  const site = await start(definition(), {
    lastFiguresMs: 100,
    dest: (guest) =>
      overriding(guest, {
        examine: async () => {
          await new Promise((resolve) => setTimeout(resolve, 1000));
          return await guest.examine();
        },
      }),
  });
  const { report } = await follow(site.migrate({ strategy: 'precopy' }));
  expect(report.outcome).toBe('completed');
  expect(report.notes).toContainEqual(expect.stringMatching(SOUND));
});

test('what is left in post-copy, and how fast it goes, is told until the last page', async () => {
  // Few faults: what the background brings is what there is to see.
  const calm = definition({ content: { random: 1 }, workload: { kind: 'uniform', pagesPerSec: 10 } });
  const site = await start(calm);
  const { report, events } = await follow(
    site.migrate({ strategy: 'postcopy', maxBandwidth: 16_000_000, compress: 'off' }),
  );
  expect(report.outcome, JSON.stringify(report.error)).toBe('completed');
  const told = events.flatMap((event) =>
    event.type === 'progress' && event.phase === 'postcopy' ? [event] : [],
  );
  const left = told.map(({ remainingBytes }) => remainingBytes);
  const figures = JSON.stringify(told.map((each) => [each.remainingBytes, each.bandwidthBytesPerSec]));
  expect(new Set(left).size, figures).toBeGreaterThan(3);
  expect(left[0], figures).toBeGreaterThan(10e6);
  expect(left.at(-1), figures).toBeLessThan(8e6);
  expect(
    told.filter(({ bandwidthBytesPerSec }) => bandwidthBytesPerSec > 1e6).length,
    figures,
  ).toBeGreaterThan(2);
});
