/** Whatever goes wrong with a guest's memory or state on its way, the report says that it is damaged. */

import type { PageBatch, SourceGuest, SourceItem } from '@vmferry/engine/guest';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { PAGE_WORDS } from '@vmferry/memsim/guest/content';
import { afterEach, describe, expect, test } from 'vitest';
import { follow } from '../migrate/agents.ts';
import { contentAt, definition, overriding, type Site, type Spoil, startSite, withItems } from './support.ts';

let site: Site | undefined;
afterEach(async () => {
  await site?.close();
});

const guest = definition({
  content: { zero: 0, text: 0.5, random: 0.5 },
  workload: { kind: 'sequential', pagesPerSec: 3000, region: { first: 0, pages: 1000 } },
});
/** Nobody writes this page, so it is only ever sent once. */
const PAGE = 5000;

async function migrate(spoil: Spoil, strategy: 'precopy' | 'postcopy'): Promise<MigrationReport> {
  site = await startSite(guest, spoil);
  const { report } = await follow(site.migrate({ strategy, compress: 'off' }));
  return report;
}

function expectDamage(report: MigrationReport, why: RegExp): void {
  expect(report).toMatchObject({
    outcome: 'attention',
    error: { code: 'E_GUEST_DAMAGED', side: 'dest', phase: 'completion', guestRunsOn: 'dest' },
  });
  expect(report.error?.message).toMatch(/^sim:g is damaged on the destination after \d+ writes: /);
  expect(report.error?.message).toMatch(why);
  expect(exitStatus(report)).toBe(3);
}

/** Changes every batch, also those that are taken out of turn. */
function batches(source: SourceGuest, change: (batch: PageBatch) => PageBatch): SourceGuest {
  const items = withItems(source, (item: SourceItem) => (item.type === 'pages' ? change(item) : item));
  return overriding(items, {
    takePages: (range) => {
      const taken = source.takePages(range);
      return typeof taken === 'object' ? change(taken) : taken;
    },
  });
}

function without(batch: PageBatch, page: number): PageBatch {
  const at = contentAt(batch, page);
  if (at === undefined) return batch;
  const keep = [...batch.pages.keys()].filter((index) => batch.pages[index] !== page);
  batch.content.copyWithin(at, at + 4096);
  return {
    ...batch,
    pages: Uint32Array.from(keep, (index) => batch.pages[index]!),
    kinds: Uint8Array.from(keep, (index) => batch.kinds[index]!),
    content: batch.content.subarray(0, batch.content.length - 4096),
  };
}

describe.each(['precopy', 'postcopy'] as const)('in %s', (strategy) => {
  test('a byte that flips is found', async () => {
    const flip = (batch: PageBatch): PageBatch => {
      const at = contentAt(batch, PAGE);
      if (at !== undefined) batch.content[at + 3000]! ^= 4;
      return batch;
    };
    const report = await migrate({ source: (source) => batches(source, flip) }, strategy);
    expectDamage(report, /1 of 6144 pages are wrong: page 5000 has bytes that are not its own/);
  });

  test('a page that is stale is found', async () => {
    // Page 900 as it was before anything was written to it; the guest does not stop before it has been.
    const older = (batch: PageBatch, machine: () => Site['source']): PageBatch => {
      const at = contentAt(batch, 900);
      if (at === undefined || machine().generations[900]! === 0) return batch;
      const words = new Uint32Array(PAGE_WORDS);
      machine().readPage(900, words);
      const now = machine().generations[900]!;
      Atomics.store(machine().generations as Uint32Array, 900, now - 1);
      machine().readPage(900, words);
      Atomics.store(machine().generations as Uint32Array, 900, now);
      batch.content.set(new Uint8Array(words.buffer), at);
      return batch;
    };
    site = await startSite(guest, {
      source: (source, machine) => batches(source, (batch) => older(batch, machine)),
    });
    await expect.poll(() => site!.source.generations[900], { interval: 5 }).toBeGreaterThan(0);
    const { report } = await follow(site.migrate({ strategy, compress: 'off' }));
    expectDamage(report, /page 900 lacks 1 write of \d+/);
  });

  test('a word of the device state that is lost is found', async () => {
    const spoil = (item: SourceItem): SourceItem => {
      // The state has more than 16 KiB of registers.
      if (item.type !== 'opaque' || item.bytes.length < 16_384) return item;
      const bytes = Uint8Array.from(item.bytes);
      bytes.fill(0, 12 + 400, 12 + 404);
      return { type: 'opaque', bytes };
    };
    const report = await migrate({ source: (source) => withItems(source, spoil) }, strategy);
    expectDamage(report, /register 100 of the devices has another value than it must have/);
  });
});

test('a page that is dropped in pre-copy is found', async () => {
  const report = await migrate(
    { source: (source) => batches(source, (batch) => without(batch, PAGE)) },
    'precopy',
  );
  expectDamage(report, /1 of 6144 pages are wrong: page 5000 was never received/);
});

test('a write that is sent before it and not after is found', async () => {
  // The last rounds say nothing of page 900, although the guest writes it all the time.
  let first = true;
  const forget = (batch: PageBatch): PageBatch => {
    if (contentAt(batch, 900) === undefined) return batch;
    if (!first) return without(batch, 900);
    first = false;
    return batch;
  };
  site = await startSite(guest, {
    source: (source) => batches(source, forget),
  });
  const { report } = await follow(
    site.migrate({ strategy: 'precopy', compress: 'off', maxBandwidth: 60_000_000 }),
  );
  expectDamage(report, /page 900 lacks \d+ writes? of \d+/);
});

test('a page that is sent twice in post-copy is refused by the hypervisor, as by a real one', async () => {
  let kept: PageBatch | undefined;
  const twice = (batch: PageBatch): PageBatch => {
    if (contentAt(batch, PAGE) === undefined) return batch;
    kept = {
      ...batch,
      content: Uint8Array.from(batch.content),
      headroomBytes: 0 as never,
      release: () => {},
    };
    return batch;
  };
  const again = (source: SourceGuest): SourceGuest => {
    const changed = batches(source, twice);
    return overriding(changed, {
      open: async (plan, session) => {
        const items = await changed.open(plan, session);
        return (async function* () {
          for await (const item of items) {
            if (item.type === 'end' && kept) yield kept;
            yield item;
          }
        })();
      },
    });
  };
  const report = await migrate({ source: again }, 'postcopy');
  expect(report).toMatchObject({ outcome: 'attention', error: { side: 'dest' } });
  expect(report.error?.message).toMatch(/page \d+ came twice/);
});

test('a guest that cannot be examined is not called sound', async () => {
  const report = await migrate(
    {
      dest: (dest) => overriding(dest, { examine: () => Promise.reject(new Error('the examiner is ill')) }),
    },
    'precopy',
  );
  expect(report).toMatchObject({
    outcome: 'attention',
    error: {
      code: 'E_GUEST_DAMAGED',
      message: 'the guest could not be examined on the destination: the examiner is ill',
    },
  });
});
