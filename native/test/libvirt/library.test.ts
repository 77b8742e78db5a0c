/** libvirt's part where libvirt is missing, and the names that were written down from its headers. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorCodes, errorDomains } from '@vmferry/native/libvirt/error-names';
import { LibvirtError } from '@vmferry/native/libvirt/errors';
import * as flags from '@vmferry/native/libvirt/flags';
import { afterEach, expect, test, vi } from 'vitest';

afterEach(() => {
  vi.unstubAllEnvs();
  vi.resetModules();
});

test('a host without libvirt says so when it is used, and not before', async () => {
  vi.resetModules();
  vi.stubEnv('VMFERRY_LIBVIRT', '/nonexistent/libvirt.so.0');
  const { LibvirtConnection } = await import('@vmferry/native/libvirt/connection');
  const { features } = await import('@vmferry/native/features');
  expect(features.libvirt).toBe(true);
  await expect(LibvirtConnection.open('test:///default')).rejects.toMatchObject({
    code: 'E_NATIVE_MISSING',
    message: expect.stringMatching(
      /^libvirt cannot be used on this host: \/nonexistent\/libvirt\.so\.0: .*libvirt0/,
    ),
  });
});

test('a library that is not libvirt is refused', async () => {
  vi.resetModules();
  vi.stubEnv('VMFERRY_LIBVIRT', 'libc.so.6');
  const { libvirt } = await import('@vmferry/native/libvirt/library');
  expect(() => libvirt()).toThrow(
    expect.objectContaining({ code: 'E_NATIVE_MISSING', message: expect.stringContaining('virInitialize') }),
  );
});

test('an addon that was built without libvirt says how to get it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmferry-'));
  const stand = join(folder, 'without.cjs');
  writeFileSync(stand, 'module.exports = { features: { lz4: true, xxhash: true, libvirt: false } };');
  vi.resetModules();
  vi.stubEnv('VMFERRY_NATIVE_ADDON', stand);
  try {
    const { LibvirtConnection } = await import('@vmferry/native/libvirt/connection');
    await expect(LibvirtConnection.open('test:///default')).rejects.toMatchObject({
      code: 'E_NATIVE_MISSING',
      message: 'built without libvirt: install libvirt-dev and rebuild',
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function header(name: string): string {
  const include = execFileSync('pkg-config', ['--variable=includedir', 'libvirt'], {
    encoding: 'utf8',
  }).trim();
  return readFileSync(join(include, 'libvirt', name), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
}

test('the names of errors are those of the header', () => {
  const text = header('virterror.h');
  const numbers = (pattern: RegExp) =>
    Object.fromEntries([...text.matchAll(pattern)].map(([, name, number]) => [name, Number(number)]));
  const { VIR_ERR_NONE, VIR_ERR_WARNING, VIR_ERR_ERROR, ...codes } = numbers(
    /\b(VIR_(?:ERR|WAR)_\w+)\s*=\s*(\d+)/g,
  );
  expect([VIR_ERR_NONE, VIR_ERR_WARNING, VIR_ERR_ERROR]).toEqual([0, 1, 2]);
  // A header that is older or newer has fewer or more.
  expect(errorCodes).toMatchObject(pick(codes, Object.keys(errorCodes)));
  expect(errorDomains).toMatchObject(
    pick(numbers(/\b(VIR_FROM_\w+)\s*=\s*(\d+)/g), Object.keys(errorDomains)),
  );
});

function pick(numbers: Record<string, number>, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).filter(([name]) => names.includes(name)));
}

test('an error that is newer than the names keeps its numbers', () => {
  const failure = { code: 0, message: 'm', call: 'c', number: 4711, domain: 815, level: 9, details: [''] };
  expect(new LibvirtError(failure)).toMatchObject({
    code: 'VIR_ERR_4711',
    domain: 'VIR_FROM_815',
    level: 'VIR_ERR_9',
    details: [],
  });
});

test('the numbers of flags are those of the header', () => {
  const text = `${header('libvirt-domain.h')}${header('libvirt-host.h')}${header('libvirt-qemu.h')}`;
  const bitOf = (name: string) => {
    const match = new RegExp(`\\b${name}\\s*=\\s*\\(?1U? << (\\d+)\\)?`).exec(text);
    if (match === null) throw new Error(`no ${name}`);
    return 2 ** Number(match[1]);
  };
  const prefixes: [Readonly<Record<string, number>>, string, Readonly<Record<string, string>>][] = [
    [
      flags.migrateFlags,
      'VIR_MIGRATE_',
      {
        'peer-to-peer': 'PEER2PEER',
        'persist-destination': 'PERSIST_DEST',
        'non-shared-incremental': 'NON_SHARED_INC',
        'post-copy': 'POSTCOPY',
        'post-copy-resume': 'POSTCOPY_RESUME',
        'zero-copy': 'ZEROCOPY',
      },
    ],
    [flags.createFlags, 'VIR_DOMAIN_START_', { 'auto-destroy': 'AUTODESTROY' }],
    [flags.defineFlags, 'VIR_DOMAIN_DEFINE_', {}],
    [flags.destroyFlags, 'VIR_DOMAIN_DESTROY_', {}],
    [flags.undefineFlags, 'VIR_DOMAIN_UNDEFINE_', {}],
    [flags.xmlFlags, 'VIR_DOMAIN_XML_', {}],
    [
      flags.listFlags,
      'VIR_CONNECT_LIST_DOMAINS_',
      {
        'shut-off': 'SHUTOFF',
        'other-state': 'OTHER',
        'managed-save': 'MANAGEDSAVE',
        'no-managed-save': 'NO_MANAGEDSAVE',
        snapshots: 'HAS_SNAPSHOT',
        'no-snapshots': 'NO_SNAPSHOT',
        checkpoints: 'HAS_CHECKPOINT',
        'no-checkpoints': 'NO_CHECKPOINT',
      },
    ],
    [flags.statisticsGroups, 'VIR_DOMAIN_STATS_', { 'dirty-rate': 'DIRTYRATE' }],
    [flags.jobStatisticsFlags, 'VIR_DOMAIN_JOB_STATS_', {}],
    [flags.abortJobFlags, 'VIR_DOMAIN_ABORT_JOB_', { 'post-copy': 'POSTCOPY' }],
    [flags.maxSpeedFlags, 'VIR_DOMAIN_MIGRATE_MAX_SPEED_', { 'post-copy': 'POSTCOPY' }],
    [flags.compareFlags, 'VIR_CONNECT_COMPARE_CPU_', { validate: 'VALIDATE_XML' }],
    [flags.monitorCommandFlags, 'VIR_DOMAIN_QEMU_MONITOR_COMMAND_', { human: 'HMP' }],
    [
      flags.monitorEventFlags,
      'VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_',
      { pattern: 'REGEX', 'ignore-case': 'NOCASE' },
    ],
  ];
  for (const [table, prefix, others] of prefixes) {
    for (const [name, bit] of Object.entries(table)) {
      const own = others[name] ?? name.toUpperCase().replaceAll('-', '_');
      expect(bit, name).toBe(bitOf(prefix + own));
    }
  }
});
