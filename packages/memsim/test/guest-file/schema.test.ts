import { readFile } from 'node:fs/promises';
import { PAGE_BYTES } from '@vmferry/engine/units';
import { guestFileJsonSchema } from '@vmferry/memsim/guest-file/json-schema';
import { libraryAbout, libraryGuest, libraryNames } from '@vmferry/memsim/guest-file/library';
import { parseGuestFile } from '@vmferry/memsim/guest-file/parse';
import { expect, test } from 'vitest';

const parse = (text: string) => parseGuestFile(text, 'web.yaml');

test('a guest file gives sizes in bytes, rates in pages a second, and defaults for the rest', () => {
  const guest = parse(`
name: web
memory: 512MiB
vcpus: 2
workload:
  kind: mix
  parts:
    - {kind: uniform, pagesPerSec: 20MiB/s}
    - {kind: hot-and-cold, pagesPerSec: 50, hotPages: 1MiB, hotShare: 0.9, region: {first: 16, pages: 64MiB}}
`);
  expect(guest).toEqual({
    name: 'web',
    memory: 512 * 1024 * 1024,
    vcpus: 2,
    seed: 1,
    content: { zero: 0.3, text: 0.4, random: 0.2, duplicate: 0.1 },
    workload: {
      kind: 'mix',
      parts: [
        { kind: 'uniform', pagesPerSec: 5120 },
        {
          kind: 'hot-and-cold',
          pagesPerSec: 50,
          hotPages: 256,
          hotShare: 0.9,
          region: { first: 16, pages: 16384 },
        },
      ],
    },
  });
});

test('sizes in powers of 1000 and of 1024 are what they are elsewhere', () => {
  const { memory, workload } = parse(
    'name: a\nmemory: 512MB\nworkload: {kind: uniform, pagesPerSec: 4096kB/s, region: {first: 0, pages: 256 mb}}',
  );
  expect(memory).toBe(512e6);
  expect(workload).toMatchObject({ pagesPerSec: 1000, region: { pages: 62_500 } });
});

test('shares of content that are not named are none', () => {
  expect(parse('{name: a, memory: 1MiB, content: {zero: 1}}').content).toEqual({
    zero: 1,
    text: 0,
    random: 0,
    duplicate: 0,
  });
});

test('what parts have in common is written once, with anchors and merge keys', () => {
  const { workload } = parse(`name: a
memory: 4MiB
workload:
  kind: mix
  parts:
    - &first { kind: uniform, pagesPerSec: 5 }
    - { <<: *first, pagesPerSec: 6 }
    - *first
`);
  expect(workload).toMatchObject({ parts: [{ pagesPerSec: 5 }, { pagesPerSec: 6 }, { pagesPerSec: 5 }] });
});

test('everything that is wrong with a guest file is said at once, each with its line', () => {
  expect(() =>
    parse(`name: web
memory: 512
vcpus: 0
colour: green
content: {zero: 0.5}
workload: {kind: unifrom, pagesPerSec: 3}
`),
  ).toThrow(
    /^web\.yaml: .*memory: .*512MiB.* \(line 2\).*vcpus: .*\(line 3\).*content: .*add up to 1 \(line 5\).*workload\.kind: there is no such kind; there are idle, uniform, .*\(line 6\).*unknown key colour \(line 4\)/s,
  );
});

test.each(['512M', '512MiB', '524288 KiB', '0.5g'])(
  'memory of %s is 512 MiB, as with QEMU’s -m',
  (memory) => {
    expect(parse(`name: web\nmemory: ${memory}\n`).memory).toBe(512 * 1024 ** 2);
  },
);

test.each([
  [
    'memory: 512',
    /memory: write a size, as in 512MiB or 512M \(powers of 1024\) or 512MB \(powers of 1000\)/,
  ],
  ['memory: 10MB', /memory: 10000000 bytes are no whole pages of 4096: write 9764KiB or 9768KiB \(line 2\)/],
  ['memory: 8192B', /memory: memory is 1MiB to 1TiB/],
  ['memory: 2TiB', /memory: memory is 1MiB to 1TiB/],
  ['memory: 1.0001MiB', /memory: 1048681 bytes are no whole pages of 4096: write 1024KiB or 1028KiB/],
  [
    'memory: 4MiB\nworkload: {kind: uniform, pagesPerSec: fast}',
    /workload\.pagesPerSec: write a rate above 0/,
  ],
  ['memory: 4MiB\nworkload: {kind: uniform, pagesPerSec: 0}', /workload\.pagesPerSec: a rate is more than 0/],
  ['memory: 4MiB\nworkload: {kind: uniform}', /workload\.pagesPerSec: is missing: write a rate/],
  [
    'memory: 4MiB\nworkload: {kind: uniform, pagesPerSec: 1, region: {first: 1000, pages: 25}}',
    /workload\.region: it ends beyond the guest's memory, which has 1024 pages/,
  ],
  [
    'memory: 4MiB\nworkload: {kind: mix, parts: [{kind: strided, pagesPerSec: 1, stride: 8MiB}]}',
    /workload\.parts\[0\]\.stride: 2048 pages are more than the 1024 that the workload has \(line 3\)/,
  ],
  [
    'memory: 4MiB\nworkload: {kind: moving, pagesPerSec: 1, windowPages: 9MiB, stepPages: 1, everySeconds: 0}',
    /workload\.everySeconds: at least 0.001 s/,
  ],
  [
    `memory: 4MiB\nworkload: ${'{kind: mix, parts: ['.repeat(5)}{kind: idle}${']}'.repeat(5)}`,
    /at most 4 deep/,
  ],
  ['memory: 4MiB\nname: b', /^web\.yaml: Map keys must be unique \(line 3\)$/],
  ['memory: 4MiB\nworkload: {pagesPerSec: 5}', /workload\.kind: is missing; there are idle, .* \(line 3\)/],
  ['memory: 4MiB\n---\nname: b', /another document begins, and one is needed \(line 3\)/],
  ['memory: !size 4MiB', /Unresolved tag: !size \(line 2\)/],
  [
    'memory: 4MiB\nworkload: {kind: mix, parts: [&a {kind: uniform, pagesPerSec: 1}, {<<: *a, pagesPerSec: 0}]}',
    /workload\.parts\[1\]\.pagesPerSec: a rate is more than 0 .*\(line 3\)/,
  ],
])('%s is refused in words', (text, why) => {
  expect(() => parse(`name: a\n${text}`)).toThrow(why);
});

test.each(['', '[1, 2]', 'text'])('%j is not a guest file', (text) => {
  expect(() => parse(text)).toThrow(/a guest file is a list of keys and values/);
});

test.each(libraryNames)('the library guest %s is a valid guest and says what it is for', (name) => {
  const guest = libraryGuest(name);
  expect(guest?.name).toBe(name);
  expect(guest!.memory % PAGE_BYTES).toBe(0);
  expect(libraryAbout(name)).toMatch(/\w/);
});

test('the library has no guest of a name that is only a property of objects', () => {
  expect(libraryGuest('toString')).toBeUndefined();
  expect(libraryGuest('nobody')).toBeUndefined();
});

test('the JSON Schema for editors is what the schema says today', async () => {
  const file = new URL('../../guest-file.schema.json', import.meta.url);
  // When this fails: make build, then node scripts/guest-file-schema.mjs
  expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(JSON.parse(JSON.stringify(guestFileJsonSchema())));
});
