import type {
  DestGuest,
  DestItem,
  PageBatch,
  SourceGuest,
  SourceItem,
  SourcePlan,
} from '@vmferry/engine/guest';
import { blockIndex, bytes, bytesPerSec, pages, round } from '@vmferry/engine/units';
import { encodeHello, encodeMissing, encodeState } from '@vmferry/memsim/guest/device-state';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { guest } from '../support/guests.ts';

const PLAN: SourcePlan = {
  throttle: false,
  postcopy: true,
  batches: { precopy: { rawPages: 64, pages: 256 }, postcopy: { rawPages: 8, pages: 16 } },
  bufferBytes: bytes(1024 * 1024),
};
const RAM = blockIndex(0);

const hosts: SimulationHost[] = [];
afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.close()));
});

function host(file: Record<string, unknown> = {}): SimulationHost {
  const made = new SimulationHost([guest(file)]);
  hosts.push(made);
  return made;
}

const busy = { vcpus: 2, workload: { kind: 'uniform', pagesPerSec: 20_000 } };

/** One letter an item, as the seam's grammar has them. */
const LETTER: Readonly<Record<SourceItem['type'], string>> = {
  'ram-layout': 'L',
  pages: 'p',
  'round-over': 'R',
  'round-end': 'r',
  opaque: 'o',
  verbatim: 'v',
  stopped: 'S',
  'state-complete': 'C',
  end: 'E',
};

/** Reads all items and releases them; `on` is called with each before. */
async function read(source: SourceGuest, on: (item: SourceItem) => unknown): Promise<string> {
  let order = '';
  for await (const item of await source.open(PLAN, 's')) {
    order += LETTER[item.type];
    await on(item);
    if (item.type === 'pages') item.release();
  }
  return order;
}

describe('a source guest', () => {
  test('gives the items of pre-copy in the order of the seam, all of memory first', async () => {
    const source = await host(busy).source('tiny');
    const first = new Set<number>();
    const order = await read(source, async (item) => {
      if (item.type === 'pages' && item.round === 1) for (const page of item.pages) first.add(page);
      if (item.type === 'round-end' && item.round === 1) {
        expect(item.remainingBytes % 4096).toBe(0);
        expect(await source.progress()).toMatchObject({ round: 2 });
      }
      if (item.type === 'round-end' && item.round === 2) await source.switchover();
    });
    expect(order).toMatch(/^o+L[pr]+S(p|o)*oCE$/);
    expect(first.size).toBe(1024);
  });

  test('gives the pages of post-copy each once, those that were asked for first', async () => {
    const source = await host(busy).source('tiny');
    const seen: number[] = [];
    let missing = 0;
    let complete = false;
    const order = await read(source, async (item) => {
      // A round may be over before a vCPU has written anything.
      if (item.type === 'round-end' && item.remainingBytes > 0) await source.startPostcopy();
      if (item.type === 'state-complete') {
        complete = true;
        missing = (await source.progress()).remainingBytes / 4096;
        const asked = [...Array(1024).keys()].filter((page) => page >= 500 && page < 600);
        source.requestPages([{ block: RAM, first: pages(500), count: pages(asked.length) }], 'express');
        const taken = source.takePages({ block: RAM, first: pages(0), count: pages(1024) });
        if (typeof taken !== 'object') throw new Error('nothing was taken');
        expect(taken.lane).toBe('express');
        expect(taken.pages.length).toBeLessThanOrEqual(16);
        seen.push(...taken.pages);
        taken.release();
      }
      if (item.type === 'pages' && complete) {
        if (item.lane === 'express')
          for (const page of item.pages) expect(page >= 500 && page < 600).toBe(true);
        else expect(item.pages.some((page) => page >= 500 && page < 600)).toBe(false);
        seen.push(...item.pages);
        expect(source.takePages({ block: RAM, first: pages(seen[0]!), count: pages(1) })).toBe('sent');
      }
    });
    expect(order).toMatch(/^o+L[pr]+SoC?o*Cp*E$/);
    expect(missing).toBeGreaterThan(0);
    expect(seen.length).toBe(missing);
    expect(new Set(seen).size).toBe(missing);
  });

  test('waits for nothing to become dirty no more once it is told to stop', async () => {
    const source = await host({ workload: { kind: 'idle' } }).source('tiny');
    // Its next look never comes.
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    try {
      const order = await read(source, (item) => {
        if (item.type !== 'round-end') return;
        expect(item.remainingBytes).toBe(0);
        void source.switchover();
      });
      expect(order).toMatch(/^o+Lp+rSoCE$/);
    } finally {
      vi.useRealTimers();
    }
  });

  test('gives a batch’s buffer back once, and uses it again', async () => {
    const source = await host({ content: { random: 1 } }).source('tiny');
    const buffers = new Set<ArrayBufferLike>();
    let batches = 0;
    await read(source, async (item) => {
      if (item.type === 'round-end') await source.switchover();
      if (item.type !== 'pages') return;
      batches += 1;
      buffers.add(item.content.buffer);
      expect(item.content.byteOffset).toBeGreaterThanOrEqual(item.headroomBytes);
    });
    expect(batches).toBe(16);
    expect(buffers.size).toBe(1);
    let kept: PageBatch | undefined;
    await read(await host({ content: { random: 1 } }).source('tiny'), (item) => {
      if (item.type === 'pages') kept = item;
      if (item.type === 'round-end') throw new Error('enough');
    }).catch(() => {});
    expect(() => kept?.release()).toThrow(/released twice/);
  });

  test('measures how fast its memory gets dirty without reading the log', async () => {
    const here = host({ workload: { kind: 'sequential', pagesPerSec: 500 } });
    const source = await here.source('tiny');
    const rate = await source.measureDirtyRate();
    expect(rate! / 4096).toBeGreaterThan(100);
    expect(rate! / 4096).toBeLessThan(600);
    const logged = here.machine('tiny')!.dirtyLog.some((word) => word !== 0);
    expect(logged).toBe(true);
  });

  test('gathers batches of some hundredths of a second of the pace that it is told', async () => {
    const source = await host({ content: { random: 1 } }).source('tiny');
    const sizes: number[] = [];
    await read(source, (item) => {
      if (item.type === 'pages') sizes.push(item.pages.length);
      if (sizes.length === 2) source.setPace(bytesPerSec(20 * 409_600));
      return item.type === 'round-end' ? source.switchover() : undefined;
    });
    expect(sizes.slice(0, 2)).toEqual([64, 64]);
    expect(new Set(sizes.slice(2, -1))).toEqual(new Set([20]));
  });

  test('is given back by a rollback at any item of its stream, and is whole', async () => {
    const here = host(busy);
    for (const [how, letter] of [
      ['switchover', 'o'],
      ['switchover', 'p'],
      ['switchover', 'S'],
      ['startPostcopy', 'S'],
      ['startPostcopy', 'C'],
      ['switchover', 'C'],
    ] as const) {
      const source = await here.source('tiny');
      let rolledBack: Promise<void> | undefined;
      let order = '';
      for await (const item of await source.open(PLAN, 's')) {
        order += LETTER[item.type];
        if (item.type === 'pages') item.release();
        if (item.type === 'round-end') await source[how]();
        if (LETTER[item.type] === letter) rolledBack ??= source.rollback();
        if (rolledBack && item.type === 'end') break;
      }
      await rolledBack;
      const machine = here.machine('tiny')!;
      expect(machine.running, order).toBe(true);
      expect((await machine.verify()).sound).toBe(true);
      await source.close();
    }
  });
});

describe('a destination guest', () => {
  const HELLO: DestItem = {
    type: 'opaque',
    bytes: encodeHello({ pages: 1024, vcpus: 1, streams: 0 }, 'ab'.repeat(32)),
  };
  const LAYOUT = (size: number): DestItem => ({
    type: 'ram-layout',
    layout: { blocks: [{ name: 'ram', bytes: bytes(size), hostPageBytes: bytes(4096) }] },
  });
  const batch = (page: number, block = 0): DestItem => ({
    type: 'pages',
    block: blockIndex(block),
    round: round(1),
    lane: 'bulk',
    pages: Uint32Array.of(page),
    kinds: Uint8Array.of(1),
    content: new Uint8Array(0),
    headroomBytes: bytes(0),
    release: () => {},
  });

  test.each([
    ['the stream of another guest', [HELLO], /it is that of another guest/],
    ['memory of another size', [LAYOUT(4096)], /laid out as that of another guest/],
    ['a page beyond its memory', [batch(1024)], /there is no page 1024/],
    ['a block that it has not', [batch(0, 1)], /there is no block 1/],
    ['a stream without a state', [{ type: 'state-complete', pagesFollow: false }], /no device state in it/],
    ['bytes that mean nothing', [{ type: 'opaque', bytes: Buffer.from('QEVM') }], /it is none of ours/],
  ] as const)('refuses %s', async (_what, items, why) => {
    const dest = await host().dest('tiny');
    await dest.open({ postcopy: true, bufferBytes: bytes(1) }, 's');
    const applying = items.map((item) => dest.apply(item as DestItem));
    await expect(Promise.all(applying)).rejects.toMatchObject({
      name: 'GuestError',
      code: 'E_STREAM',
      message: expect.stringMatching(why),
    });
  });

  test('is not complete while pages are missing', async () => {
    const there = host();
    const dest = await there.dest('tiny');
    await dest.open({ postcopy: true, bufferBytes: bytes(1) }, 's');
    const machine = there.machine('tiny')!;
    await dest.apply({ type: 'opaque', bytes: [...encodeMissing(Uint32Array.of(2))][0]! });
    await dest.apply({ type: 'opaque', bytes: encodeState(machine.saveDevices()) });
    await expect(dest.apply({ type: 'state-complete', pagesFollow: false })).rejects.toThrow(
      /none are to follow/,
    );
    await dest.apply({ type: 'state-complete', pagesFollow: true });
    await dest.ready();
    await expect(dest.apply({ type: 'end' })).rejects.toThrow(/1 pages did not come/);
    await dest.apply(batch(1));
    await expect(dest.apply(batch(1))).rejects.toThrow(/page 1 came twice/);
    await dest.apply({ type: 'end' });
    await dest.complete();
  });

  test('that was discarded is gone from its host, and another may come', async () => {
    const there = host();
    const dest = await there.dest('tiny');
    await dest.open({ postcopy: false, bufferBytes: bytes(1) }, 's');
    const second = await there.dest('tiny');
    await expect(second.open({ postcopy: false, bufferBytes: bytes(1) }, 's')).rejects.toMatchObject({
      code: 'E_GUEST_BUSY',
    });
    await dest.discard();
    expect(there.machine('tiny')).toBeUndefined();
    await second.open({ postcopy: false, bufferBytes: bytes(1) }, 's');
    await second.discard();
  });
});

describe('a host', () => {
  const start = async (there: SimulationHost): Promise<DestGuest> => {
    const dest = await there.dest('tiny');
    await dest.open({ postcopy: true, bufferBytes: bytes(1) }, 's');
    return dest;
  };
  const arrive = async (there: SimulationHost): Promise<void> => {
    const dest = await start(there);
    await dest.apply({ type: 'opaque', bytes: encodeState(there.machine('tiny')!.saveDevices()) });
    await dest.apply({ type: 'state-complete', pagesFollow: false });
    await dest.apply({ type: 'end' });
    await dest.examine();
  };

  test('lets a guest that came in move on only when all of it is there and was examined', async () => {
    const there = host();
    const dest = await start(there);
    const machine = there.machine('tiny')!;
    const refused = { code: 'E_GUEST_BUSY', message: expect.stringContaining('not all of sim:tiny is on') };
    await expect(there.source('tiny')).rejects.toMatchObject(refused);
    const examined = dest.examine();
    await expect(there.source('tiny')).rejects.toMatchObject(refused);
    await examined;
    const source = await there.source('tiny');
    expect(await source.describe()).toMatchObject({ name: 'sim:tiny', running: false });
    expect(there.machine('tiny')).toBe(machine);
  });

  test('starts no guest again that left, and takes it in when it comes back', async () => {
    const here = host();
    await (await here.source('tiny')).forget({ destroy: true });
    const left = {
      code: 'E_GUEST_UNREACHABLE',
      message: 'sim:tiny has left this host and is not started again',
    };
    await expect(here.source('tiny')).rejects.toMatchObject(left);
    await (await start(here)).discard();
    await expect(here.source('tiny')).rejects.toMatchObject(left);
    await arrive(here);
    await here.source('tiny');
  });

  test('keeps the guest that came back when the session that brought it the first time is over', async () => {
    const here = host();
    const first = await start(here);
    await first.examine();
    await (await here.source('tiny')).forget({ destroy: true });
    await arrive(here);
    const machine = here.machine('tiny');
    await first.discard();
    expect(here.machine('tiny')).toBe(machine);
    expect((await (await here.source('tiny')).describe()).name).toBe('sim:tiny');
  });

  test('that starts none by itself has those that it was told to start', async () => {
    const here = new SimulationHost([guest()], { startsWhenAsked: false });
    hosts.push(here);
    await expect(here.source('tiny')).rejects.toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      message: 'sim:tiny may come to this host, and has not yet',
    });
    await expect(here.start('nobody')).rejects.toMatchObject({ code: 'E_GUEST_UNREACHABLE' });
    await here.start('tiny');
    const machine = here.machine('tiny');
    expect(machine?.running).toBe(true);
    await here.start('tiny');
    expect(here.machine('tiny')).toBe(machine);
  });

  test.each([
    [
      'here',
      async (there: SimulationHost) => void (await there.source('tiny')),
      'is on the destination already',
    ],
    [
      'coming in',
      async (there: SimulationHost) => void (await start(there)),
      'is coming to the destination already',
    ],
    [
      'kept after it left',
      async (there: SimulationHost) => (await there.source('tiny')).forget({ destroy: false }),
      'was on the destination before, and was kept there when it left',
    ],
  ])('takes no second guest of a name that is %s', async (_how, occupy, why) => {
    const there = host();
    const description = await (await host().source('tiny')).describe();
    await occupy(there);
    expect(
      await (await there.dest('tiny')).prepare(description, { postcopy: true, bufferBytes: bytes(1) }),
    ).toMatchObject({
      ok: false,
      reasons: [{ code: 'E_GUEST_BUSY', message: `sim:tiny ${why}` }],
    });
  });
});
