/** What libvirt is asked for. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { POSTCOPY_BATCH } from '@vmferry/engine/carriage/batch-limits';
import type { ManagedPlan, SourcePlan } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { Rendezvous } from '@vmferry/hypervisor/libvirt/rendezvous';
import { migrateOptions, PLAIN, resumeOptions } from '@vmferry/hypervisor/libvirt/source/migrate-options';
import { afterAll, beforeAll, expect, test } from 'vitest';

let dir: string;
let rendezvous: Rendezvous;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-options-'));
  rendezvous = await Rendezvous.make({ socketDir: '/run/x', socketDirHere: dir }, 'n');
});
afterAll(() => rm(dir, { recursive: true }));

function asked(
  managed: Partial<ManagedPlan>,
  {
    persistent = false,
    copied = [],
  }: { readonly persistent?: boolean; readonly copied?: readonly string[] } = {},
) {
  const plan: SourcePlan = {
    throttle: false,
    postcopy: false,
    batches: { precopy: POSTCOPY_BATCH, postcopy: POSTCOPY_BATCH },
    bufferBytes: bytes(1),
    managed: { undefineSource: false, copyStorage: 'none', keepSource: false, ...managed },
  };
  return migrateOptions(plan, rendezvous, { persistent, copied });
}

test('libvirt is told which disks to copy, and with none of them nothing is said of storage', () => {
  const copying = asked({ copyStorage: 'all' }, { copied: ['vda', 'vdd'] });
  expect(copying).toMatchObject({ disks: ['vda', 'vdd'], disksUri: 'unix:///run/x/n/nbd' });
  expect(copying.flags).toContain('non-shared-disk');
  expect(asked({ copyStorage: 'inc' }, { copied: ['vda'] }).flags).toContain('non-shared-incremental');
  const without = asked({ copyStorage: 'all' });
  expect(without.flags).toEqual(['live', 'peer-to-peer', 'paused']);
  expect(without).not.toHaveProperty('disks');
  expect(without).not.toHaveProperty('disksUri');
});

test('what is to differ on the destination also differs in the definition that it keeps', () => {
  const destXml = '<domain/>';
  expect(asked({ destXml }, { persistent: true })).toMatchObject({
    destinationXml: destXml,
    persistentXml: destXml,
  });
  expect(asked({ destXml })).not.toHaveProperty('persistentXml');
});

test('a post-copy is finished under the name and with the definitions that it was begun with', () => {
  const managed = { ...PLAIN, destName: 'there', undefineSource: true };
  const resumed = resumeOptions(managed, rendezvous, { persistent: true });
  expect(resumed).toMatchObject({ destinationName: 'there', migrateUri: 'unix:///run/x/n/ram' });
  expect(resumed.flags).toEqual(
    expect.arrayContaining(['post-copy-resume', 'persist-destination', 'undefine-source']),
  );
  const transient = resumeOptions(PLAIN, rendezvous, { persistent: false });
  expect(transient).not.toHaveProperty('destinationName');
  expect(transient.flags).toEqual(['live', 'peer-to-peer', 'post-copy', 'post-copy-resume']);
});
