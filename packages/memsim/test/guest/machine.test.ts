import { PAGE_BYTES } from '@vmferry/engine/units';
import { PAGE_WORDS } from '@vmferry/memsim/guest/content';
import { digestOf, registersOf } from '@vmferry/memsim/guest/device-state';
import { SimulatedMachine } from '@vmferry/memsim/guest/machine';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import { afterEach, describe, expect, test } from 'vitest';
import { guest } from '../support/guests.ts';

const machines: SimulatedMachine[] = [];
afterEach(async () => {
  await Promise.all(machines.splice(0).map((machine) => machine.end()));
});

function fresh(definition: GuestDefinition): SimulatedMachine {
  const machine = SimulatedMachine.fresh(definition);
  machines.push(machine);
  return machine;
}

const busy = guest({ vcpus: 2, workload: { kind: 'uniform', pagesPerSec: 400_000 } });

function writesOf(machine: SimulatedMachine): number {
  return machine.generations.reduce((sum, generation) => sum + generation, 0);
}

/** Resolves when the guest has written so often. */
async function written(machine: SimulatedMachine, writes: number): Promise<void> {
  await expect.poll(() => writesOf(machine), { interval: 2, timeout: 10_000 }).toBeGreaterThanOrEqual(writes);
}

function readPage(machine: SimulatedMachine, page: number): Buffer {
  const words = new Uint32Array(PAGE_WORDS);
  machine.readPage(page, words);
  return Buffer.from(words.buffer);
}

/** A machine that has what the other has, as if it had moved there. */
async function copy(from: SimulatedMachine): Promise<SimulatedMachine> {
  await from.pause();
  const to = SimulatedMachine.empty(from.definition);
  machines.push(to);
  for (let page = 0; page < from.shape.pages; page += 1) {
    if (from.isZeroPage(page)) to.writeZeroPage(page);
    else to.writePage(page, readPage(from, page));
  }
  const { registers, positions, chains } = from.saveDevices();
  const state = {
    registers: Uint32Array.from(registers),
    positions: Float64Array.from(positions),
    chains: Uint32Array.from(chains),
  };
  to.loadDevices({ ...state, digest: digestOf(state) });
  return to;
}

describe('vCPUs', () => {
  test('write while they run, and not once they have been paused', async () => {
    const machine = fresh(busy);
    expect(writesOf(machine)).toBe(0);
    await machine.run();
    await written(machine, 5000);
    await machine.pause();
    const writes = writesOf(machine);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(writesOf(machine)).toBe(writes);
    await machine.run();
    await written(machine, writes + 1000);
  });

  test('pause and run in any order, however fast', async () => {
    const machine = fresh(busy);
    for (let turn = 0; turn < 200; turn += 1) {
      await machine.run();
      await machine.pause();
    }
    await Promise.all([machine.run(), machine.run()]);
    await written(machine, writesOf(machine) + 1);
    await machine.run();
    void machine.pause();
    await machine.run();
    await written(machine, writesOf(machine) + 1);
    await Promise.all([machine.pause(), machine.pause()]);
    expect(machine.running).toBe(false);
  });

  test('keep to the rate, and to the part of it that a throttle leaves them', async () => {
    const machine = fresh(guest({ vcpus: 2, workload: { kind: 'uniform', pagesPerSec: 20_000 } }));
    const during = async (ms: number): Promise<number> => {
      const [before, since] = [writesOf(machine), performance.now()];
      await new Promise((resolve) => setTimeout(resolve, ms));
      return ((writesOf(machine) - before) * 1000) / (performance.now() - since);
    };
    await machine.run();
    await written(machine, 100);
    // A busy host may slow them down; nothing makes them faster.
    const patience = { timeout: 10_000, interval: 1 };
    expect(await during(400)).toBeLessThan(23_000);
    await expect.poll(() => during(300), patience).toBeGreaterThan(8_000);
    machine.throttle(90);
    expect(await during(400)).toBeLessThan(4_000);
    await expect.poll(() => during(300), patience).toBeGreaterThan(200);
    machine.throttle(0);
    await expect.poll(() => during(300), patience).toBeGreaterThan(8_000);
  });

  test('two guests of one seed that wrote equally often have the same memory', async () => {
    const one = fresh(guest({ workload: { kind: 'zipf', pagesPerSec: 50_000, exponent: 1.1 } }));
    await one.run();
    await written(one, 3000);
    await one.pause();
    const total = writesOf(one);
    const other = fresh(one.definition);
    const again = new Uint32Array(one.shape.pages);
    const { streamsOf } = await import('@vmferry/memsim/workload/streams');
    const [stream] = streamsOf(other.definition);
    for (let n = 0; n < total; n += 1) again[stream!.page(n)]! += 1;
    expect(Buffer.from(again.buffer).equals(Buffer.from(Uint32Array.from(one.generations).buffer))).toBe(
      true,
    );
  });

  test('a machine that ends is gone, and says so', async () => {
    const machine = fresh(busy);
    await machine.run();
    await machine.end('it was killed');
    await expect(machine.ended).resolves.toMatchObject({
      code: 'E_GUEST_GONE',
      message: 'the simulated guest tiny is gone: it was killed',
    });
  });
});

test('no write is lost by the dirty log: whenever the guest stands still, what was read is what is there', async () => {
  // All vCPUs, as fast as they can, and the harvest meet in one word of the log.
  const region = { first: 0, pages: 32 };
  const workload = { kind: 'uniform', pagesPerSec: 100_000_000, region };
  const machine = fresh(guest({ memory: '1MiB', vcpus: 4, workload }));
  const { dirtyLog } = machine;
  const generations = machine.generations as Uint32Array;
  const seen = new Uint32Array(region.pages);
  let harvested = 0;
  const harvest = (): void => {
    const word = Atomics.exchange(dirtyLog, 0, 0);
    for (let left = word; left !== 0; left &= left - 1) {
      const page = 31 - Math.clz32(left & -left);
      seen[page] = Atomics.load(generations, page);
      harvested += 1;
    }
  };
  // On a busy machine a turn may bring next to nothing.
  for (let turn = 0; turn < 200 || harvested <= 5000; turn += 1) {
    await machine.run();
    const until = performance.now() + 4;
    // Every other turn the vCPUs have the processors to themselves, and meet each other.
    if (turn % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 4));
    while (performance.now() < until) for (let again = 0; again < 100; again += 1) harvest();
    await machine.pause();
    harvest();
    expect([...seen]).toEqual([...generations.subarray(0, region.pages)]);
  }
});

describe('demand faults', () => {
  const walker = guest({ workload: { kind: 'sequential', pagesPerSec: 100_000 } });

  test('a vCPU that touches a missing page stands still until it has come, and the time is recorded', async () => {
    const from = fresh(walker);
    const to = await copy(from);
    const faults: number[] = [];
    to.dropPages([3, 2]);
    to.demandPages([[3, 2]], (page) => faults.push(page));
    await to.run();
    await expect.poll(() => faults).toEqual([3]);
    expect(writesOf(to) - 2 * 0xffff_ffff).toBe(3);
    expect(to.isMissing(3)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 40));
    // Another page is no reason to go on.
    to.writePage(4, readPage(from, 4));
    to.arrived([4]);
    expect(to.isMissing(4)).toBe(false);
    to.writePage(3, readPage(from, 3));
    to.arrived([3]);
    await written(to, 100);
    expect(faults).toEqual([3]);
    expect(to.waits.count).toBe(1);
    expect(to.waits.maxMs).toBeGreaterThan(30);
    expect((await to.verify()).sound).toBe(true);
  });

  test('a guest that waits for a page can be paused, asks again when it runs on, and can be ended', async () => {
    const to = await copy(fresh(walker));
    const faults: number[] = [];
    to.demandPages([[0, 1024]], (page) => faults.push(page));
    await to.run();
    await expect.poll(() => faults).toEqual([0]);
    await to.pause();
    expect(writesOf(to)).toBe(0);
    await to.run();
    await expect.poll(() => faults).toEqual([0, 0]);
    await to.end();
  });

  test('reads wait for missing pages, too', async () => {
    const reader = guest({ workload: { kind: 'read-mostly', readsPerSec: 50_000, pagesPerSec: 1 } });
    const to = await copy(fresh(reader));
    const faults = new Set<number>();
    to.demandPages([[0, 1024]], (page) => {
      faults.add(page);
      setImmediate(() => to.arrived([page]));
    });
    await to.run();
    await expect.poll(() => faults.size).toBeGreaterThan(50);
    await to.pause();
    expect(writesOf(to)).toBeLessThan(10);
  });
});

describe('verify', () => {
  async function moved(): Promise<{ from: SimulatedMachine; to: SimulatedMachine }> {
    const from = fresh(busy);
    await from.run();
    await written(from, 20_000);
    const to = await copy(from);
    return { from, to };
  }

  test('finds a moved guest sound, also after it has run on', async () => {
    const { to } = await moved();
    const verdict = await to.verify();
    expect(verdict).toMatchObject({ sound: true, findings: { pages: 1024, wrongPages: 0 } });
    const before = verdict.findings.writes;
    expect(before).toBe(writesOf(to));
    await to.run();
    await written(to, before + 10_000);
    const later = await to.verify();
    expect(later.sound).toBe(true);
    expect(later.findings.writes).toBeGreaterThan(before);
    expect(to.running).toBe(true);
  });

  test('takes nothing from what it checks: memory of another guest is wrong whatever it says of itself', async () => {
    const { to } = await moved();
    const beginning = fresh(busy);
    for (let page = 0; page < to.shape.pages; page += 1) to.writePage(page, readPage(beginning, page));
    const verdict = await to.verify();
    expect(verdict.sound).toBe(false);
    expect(verdict.findings.wrongPages).toBe(1024);
  });

  test.each([
    ['a page that never came', (m: SimulatedMachine) => m.dropPages([7, 1]), /page 7 was never received/],
    [
      'a write that was lost',
      (m: SimulatedMachine) => Atomics.sub(m.generations as Uint32Array, 9, 1),
      /1 of 1024 pages are wrong: page 9 lacks 1 write of \d+/,
    ],
    [
      'a write that was done twice',
      (m: SimulatedMachine) => Atomics.add(m.generations as Uint32Array, 9, 1),
      /page 9 has 1 write more than \d+/,
    ],
    [
      'a byte that flipped',
      (m: SimulatedMachine) => {
        const bytes = readPage(m, 11);
        bytes[2000]! ^= 1;
        m.writePage(11, bytes);
      },
      /page 11 has bytes that are not its own/,
    ],
    [
      'a page in the place of another',
      (m: SimulatedMachine) => m.writePage(12, readPage(m, 13)),
      /page 12 has bytes that are not its own/,
    ],
    [
      'zeroes where there should be content',
      (m: SimulatedMachine) => m.writeZeroPage(14),
      /page 14 has bytes that are not its own|page 14 lacks/,
    ],
  ] as const)(
    'finds %s, and goes on finding it after the guest has written on',
    async (_what, spoil, why) => {
      const { to } = await moved();
      spoil(to);
      for (const turn of [0, 1]) {
        const verdict = await to.verify();
        expect(verdict.sound, `turn ${turn}`).toBe(false);
        expect(verdict.sound ? '' : verdict.why).toMatch(why);
        await to.run();
        await written(to, 30_000);
      }
    },
  );

  test.each([
    ['a register', 'registers', 4000, /register 4000 of the devices/],
    ['how often a vCPU has written', 'positions', 1, /did not do the \d+ accesses/],
    ['a vCPU’s clock', 'positions', 0, /its digest is another/],
    ['what a vCPU has done', 'chains', 1, /vCPU 1 did not do the \d+ accesses/],
  ] as const)('finds one word of the device state that changed: %s', async (_what, part, at, why) => {
    const { to } = await moved();
    const { registers, positions, chains } = to.saveDevices();
    const state = {
      registers: Uint32Array.from(registers),
      positions: Float64Array.from(positions),
      chains: Uint32Array.from(chains),
    };
    const digest = digestOf(state);
    state[part][at]! += 1;
    to.loadDevices({ ...state, digest });
    const verdict = await to.verify();
    expect(verdict.sound ? '' : verdict.why).toMatch(why);
  });

  test('a position that no guest can have is said to be one, and not counted out', async () => {
    const { to } = await moved();
    to.saveDevices().positions[1] = Number.NaN;
    const verdict = await to.verify();
    expect(verdict.sound ? '' : verdict.why).toMatch(/vCPU 0 is nowhere in its workload \(access NaN\)/);
  });

  test('the registers of a machine are those of its seed', () => {
    const machine = fresh(guest({ seed: 5 }));
    expect(machine.saveDevices().registers).toEqual(registersOf(5));
    expect(registersOf(5)).not.toEqual(registersOf(6));
  });
});

test('a page that came damaged keeps its bytes, and gives them on', async () => {
  const to = SimulatedMachine.empty(busy);
  machines.push(to);
  const bytes = Buffer.alloc(PAGE_BYTES, 'damaged');
  to.writePage(5, bytes);
  expect(readPage(to, 5).equals(bytes)).toBe(true);
  expect(to.isZeroPage(5)).toBe(false);
});

test('a peer cannot fill the host with pages that are nobody’s', () => {
  const to = SimulatedMachine.empty(guest({ memory: '64MiB' }));
  machines.push(to);
  const bytes = Buffer.alloc(PAGE_BYTES, 1);
  expect(() => {
    for (let page = 0; page < to.shape.pages; page += 1) to.writePage(page, bytes);
  }).toThrow(/more than 4096 pages that came are none of the guest's/);
});
