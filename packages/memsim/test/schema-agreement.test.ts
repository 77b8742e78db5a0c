/** What editors are told is what the command takes: the JSON Schemas, by another validator, beside the parsers. */
import { readFile } from 'node:fs/promises';
import { Ajv, type ValidateFunction } from 'ajv';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { libraryGuest, libraryNames } from '../src/guest-file/library.ts';
import { guestFileSchema } from '../src/guest-file/schema.ts';
import { scenarioSchema, sweepSchema } from '../src/scenario/schema.ts';

/** What a JSON Schema cannot say: how values go together, and how much an amount with a unit comes to. */
const BEYOND_A_SCHEMA =
  /beyond the guest's memory|add up to 1|pages are more than|at most 4 deep|memory is|at least one page|no whole pages|a rate is more than|may mean bits or bytes|is too much for|^from 1ms to|^at most (60s|1TB\/s)|^at least 4KiB/;

const validator = async (name: string): Promise<ValidateFunction> =>
  new Ajv({ strict: true, allowUnionTypes: true }).compile(
    JSON.parse(await readFile(new URL(`../${name}.schema.json`, import.meta.url), 'utf8')) as object,
  );
const guests = await validator('guest-file');
const scenarios = await validator('scenario');
const sweeps = await validator('sweep');

const ODD: readonly unknown[] = [
  ...[
    null,
    true,
    '',
    0,
    1,
    -1,
    1.5,
    2 ** 32,
    1e300,
    [],
    {},
    { streams: 1001 },
    { packCores: 0 },
    { zero: 2 },
  ],
  ...['1M', '0M', '5K', '1.5 GiB', '2T', '20M/s', '.5s', '1e3s', '1Gbit/s', '10 Mb', '300', 'x', '0s', '3h'],
];
const odd = fc.oneof(fc.constantFrom(...ODD), fc.string());
/** Mostly `right`, now and then anything. */
const mostly = <T>(right: fc.Arbitrary<T>): fc.Arbitrary<unknown> =>
  fc.oneof<fc.WeightedArbitrary<unknown>[]>({ weight: 60, arbitrary: right }, { weight: 1, arbitrary: odd });
const one = (...values: readonly unknown[]): fc.Arbitrary<unknown> => mostly(fc.constantFrom(...values));
const entries = (
  required: Record<string, fc.Arbitrary<unknown>>,
  optional: Record<string, fc.Arbitrary<unknown>> = {},
) => fc.record({ ...required, ...optional }, { requiredKeys: Object.keys(required) });

const size = one('1MiB', '64 MiB', '1.5GiB', '512MB', '3 kb');
const count = one(1, 3, 256, '16KiB', '1MiB', '1MB');
const pagesPerSec = one(1, 5000, 0.5, 1e8, '20MiB/s', '1 GB/s');
const seconds = one(0.001, 1, 86_400);
const share = one(0, 0.25, 1);
const where = { region: mostly(entries({ first: one(0, 100), pages: count })) };
const simple = (kind: string, keys: Record<string, fc.Arbitrary<unknown>> = {}) =>
  entries({ kind: fc.constant(kind), pagesPerSec, ...keys }, where);
const { workload } = fc.letrec((tie) => ({
  workload: mostly(
    fc.oneof(
      { depthSize: 'small' },
      fc.constant({ kind: 'idle' }),
      simple('uniform'),
      simple('zipf', { exponent: one(0.1, 1, 4) }),
      simple('sequential'),
      simple('strided', { stride: count }),
      simple('hot-and-cold', { hotPages: count, hotShare: share }),
      simple('moving', { windowPages: count, everySeconds: seconds, stepPages: count }),
      simple('fork-bursts', { burstPages: count, everySeconds: seconds }),
      simple('read-mostly', { readsPerSec: pagesPerSec }),
      entries({ kind: fc.constant('trace'), file: one('a.trace') }),
      entries({ kind: fc.constant('mix'), parts: fc.array(tie('workload'), { maxLength: 2 }) }),
      entries({
        kind: fc.constant('phases'),
        phases: fc.array(entries({ seconds, workload: tie('workload') }), { maxLength: 2 }),
      }),
    ),
  ),
}));
const guest = entries(
  { name: one('a', 'web-1'), memory: size },
  {
    vcpus: one(1, 64),
    seed: one(0, 2 ** 32 - 1),
    content: one({ zero: 1 }, { text: 0.5, random: 0.5 }),
    workload,
  },
);

const duration = one('300ms', '0s', '1.5h', '2 min', '10M');
const rate = one('1gbit', '0bit', '100MB/s', '12 MiB/s', '125000000', '1Gbit/s');
const amount = one('64MiB', '1.5GB', '4096', '8kb');
const conditions = {
  latency: duration,
  loss: one(0, 0.5),
  competing: one({ rate: '1mbit', streams: 2 }, { streams: 0 }),
};
const link = entries(
  { bandwidth: rate },
  {
    ...conditions,
    windowPerStream: amount,
    changes: fc.array(entries({ at: duration }, { bandwidth: rate, ...conditions }), { maxLength: 2 }),
  },
);
const costs = one('vmferry', 'xen-2005', { like: 'xen-2009', faultMs: 1 });
const migration = {
  maxDowntime: one('300ms', '1S'),
  deadline: one('10m', '1.5h'),
  headStart: one('0s', '.5s'),
  maxBandwidth: rate,
  streams: one(1, 16),
  compress: one('off', 'lz4hc'),
  onStall: one('throttle'),
};
const named = mostly(
  fc.oneof(fc.constantFrom('web', { file: 'a.yaml' }, { name: 'a', memory: '4MiB' }), guest),
);
const scenario = entries(
  { guest: named, link },
  {
    memory: amount,
    ran: duration,
    textLeft: share,
    costs,
    migration: mostly(entries({}, { strategy: one('auto', 'hybrid'), ...migration })),
    hypervisor: one({ dirtyLog: 'skip' }, { oneLiveRound: true }),
    policy: one({ kind: 'vmferry' }, { kind: 'adaptive-rate', minRate: '1mbit', maxRate: '1gbit' }),
    postcopy: one({ channel: 'shared', queued: '1MiB' }, { prepaging: 'none' }),
    expect: one([{ figure: 'totalMs', value: 1 }], []),
  },
);
const sweep = entries(
  {
    guests: mostly(fc.array(named, { minLength: 1, maxLength: 2 })),
    links: mostly(fc.dictionary(one('a', 'b').map(String), link, { minKeys: 1, maxKeys: 2 })),
  },
  {
    strategies: one(['precopy'], ['auto', 'hybrid']),
    sizes: mostly(fc.array(amount, { minLength: 1, maxLength: 2 })),
    costs,
    migration: mostly(entries({}, migration)),
  },
);

function agree(file: fc.Arbitrary<unknown>, valid: ValidateFunction, schema: z.ZodType) {
  let [taken, refused] = [0, 0];
  fc.assert(
    fc.property(file, (made) => {
      // As a file would have it.
      const content: unknown = JSON.parse(JSON.stringify(made));
      const parsed = schema.safeParse(content);
      if (parsed.success) {
        expect(valid(content), JSON.stringify(valid.errors)).toBe(true);
        taken += 1;
        return;
      }
      const more = parsed.error.issues.filter(({ message }) => !BEYOND_A_SCHEMA.test(message));
      if (more.length > 0) {
        expect(valid(content), more.map(({ message }) => message).join()).toBe(false);
        refused += 1;
      }
    }),
    { numRuns: 1000 },
  );
  // Of both there were enough to tell.
  expect(Math.min(taken, refused)).toBeGreaterThan(20);
}

describe('the JSON Schemas for editors', () => {
  it('take and refuse the guest files that the parser does', () => agree(guest, guests, guestFileSchema));
  it('take and refuse the scenarios that the parser does', () => agree(scenario, scenarios, scenarioSchema));
  it('take and refuse the sweeps that the parser does', () => agree(sweep, sweeps, sweepSchema));

  it.each(libraryNames)('take the guest %s of the library, as a file may have it', (name) => {
    const content: unknown = JSON.parse(JSON.stringify({ ...libraryGuest(name), memory: '16GiB' }));
    expect(guests(content), JSON.stringify(guests.errors)).toBe(true);
  });
});
