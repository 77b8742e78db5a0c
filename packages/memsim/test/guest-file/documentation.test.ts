import { readFile } from 'node:fs/promises';
import { libraryGuest, libraryNames } from '@vmferry/memsim/guest-file/library';
import { parseGuestFile } from '@vmferry/memsim/guest-file/parse';
import { workloadKinds } from '@vmferry/memsim/guest-file/schema';
import { expect, test } from 'vitest';
import { parseDocument } from 'yaml';

const page = await readFile(new URL('../../../../docs/memsim.md', import.meta.url), 'utf8');
const blocks = [...page.matchAll(/```yaml\n(.*?)```/gs)].map(([, text]) => text!);

test('the guest file of the documentation is a valid one', () => {
  expect(parseGuestFile(blocks[0]!, 'docs/memsim.md').name).toBe('shop');
});

test('the pipelines of the documentation are YAML and name guests and strategies that there are', () => {
  expect(blocks).toHaveLength(3);
  for (const block of blocks.slice(1)) {
    expect(parseDocument(block).errors).toEqual([]);
    expect(block).toContain('--junit junit.xml');
    const guests = [...block.matchAll(/guest: \[(.*)\]/gi)].flatMap(([, names]) => names!.split(', '));
    expect(guests.length).toBeGreaterThan(1);
    for (const name of guests) expect(libraryGuest(name)?.name).toBe(name);
  }
});

test('the documentation lists every guest of the library and every kind of workload', () => {
  for (const name of libraryNames) {
    const memory = libraryGuest(name)!.memory / 2 ** 20;
    const size = memory % 1024 === 0 ? `${memory / 1024}GiB` : `${memory}MiB`;
    expect(page).toMatch(new RegExp(`\\| \`${name}\` +\\| ${size} +\\|`));
  }
  for (const kind of workloadKinds) expect(page).toMatch(new RegExp(`^\\| \`${kind}\` +\\|`, 'm'));
});
