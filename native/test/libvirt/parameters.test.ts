import { libvirt } from '@vmferry/native/libvirt/library';
import { type MigrationParameters, migrationParameters } from '@vmferry/native/libvirt/migration-parameters';
import { type ParameterType, type ParameterValue, parameter } from '@vmferry/native/libvirt/parameters';
import fc from 'fast-check';
import { expect, test } from 'vitest';

const field = fc.stringMatching(/^[a-z][a-z0-9._-]{0,60}$/);
const i32 = 2 ** 31;
const typed: fc.Arbitrary<[ParameterType, ParameterValue]> = fc.oneof(
  fc.tuple(fc.constant('int' as const), fc.integer({ min: -i32, max: i32 - 1 })),
  fc.tuple(fc.constant('uint' as const), fc.integer({ min: 0, max: 2 * i32 - 1 })),
  fc.tuple(fc.constant('llong' as const), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
  fc.tuple(fc.constant('ullong' as const), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  fc.tuple(fc.constant('double' as const), fc.double()),
  fc.tuple(fc.constant('boolean' as const), fc.boolean()),
  fc.tuple(
    fc.constant('string' as const),
    fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0')),
  ),
);

test('whatever goes into libvirt’s parameters comes out the same', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(field, typed), { selector: ([name]) => name }), (entries) => {
      const back = libvirt().typedParameters(
        entries.map(([name, [type, value]]) => parameter(name, type, value)),
      );
      expect(back).toEqual(Object.fromEntries(entries.map(([name, [, value]]) => [name, value])));
    }),
  );
});

test('64 bits keep every bit at the edges, and a number is taken where it is exact', () => {
  const edges: [ParameterType, number | bigint, bigint][] = [
    ['ullong', 2n ** 64n - 1n, 2n ** 64n - 1n],
    ['ullong', 2n ** 63n, 2n ** 63n],
    ['ullong', 2n ** 53n + 1n, 2n ** 53n + 1n],
    ['ullong', Number.MAX_SAFE_INTEGER, 2n ** 53n - 1n],
    ['ullong', 0, 0n],
    ['llong', 2n ** 63n - 1n, 2n ** 63n - 1n],
    ['llong', -(2n ** 63n), -(2n ** 63n)],
    ['llong', Number.MIN_SAFE_INTEGER, -(2n ** 53n) + 1n],
  ];
  for (const [type, value, expected] of edges) {
    expect(libvirt().typedParameters([parameter('x', type, value)])).toEqual({ x: expected });
  }
});

test('what is not of the type or beyond it is refused', () => {
  const wrong: [ParameterType, unknown][] = [
    ['ullong', 2n ** 64n],
    ['ullong', -1n],
    ['ullong', 2 ** 53],
    ['ullong', 1.5],
    ['ullong', '1'],
    ['llong', 2n ** 63n],
    ['llong', -(2n ** 63n) - 1n],
    ['int', 2 ** 31],
    ['int', -(2 ** 31) - 1],
    ['int', Number.NaN],
    ['int', 1n],
    ['uint', -1],
    ['uint', 2 ** 32],
    ['double', 1n],
    ['boolean', 1],
    ['string', 1],
    ['string', 'a\0b'],
  ];
  for (const [type, value] of wrong) {
    expect(() => parameter('x', type, value as ParameterValue), `${type} ${String(value)}`).toThrow(
      expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }),
    );
  }
});

test('a field that comes several times is an array', () => {
  const entries = ['vda', 'vdb', 'vdc'].map((disk) => parameter('migrate_disks', 'string', disk));
  expect(libvirt().typedParameters(entries.slice(0, 2))).toEqual({ migrate_disks: ['vda', 'vdb'] });
  expect(libvirt().typedParameters(entries)).toEqual({ migrate_disks: ['vda', 'vdb', 'vdc'] });
});

test('the parameters of a migration have libvirt’s names and types', () => {
  const all: Required<MigrationParameters> = {
    migrateUri: 'unix:///run/x',
    destinationName: 'new',
    destinationXml: '<domain/>',
    persistentXml: '<domain/>',
    bandwidth: 2n ** 63n,
    postCopyBandwidth: 100,
    graphicsUri: 'spice://host',
    listenAddress: '::',
    disks: ['vda', 'vdb'],
    disksPort: 49152,
    disksUri: 'unix:///run/y',
    compression: ['xbzrle', 'mt'],
    compressionLevel: 9,
    compressionThreads: 2,
    decompressionThreads: 3,
    xbzrleCache: 2n ** 26n,
    autoConvergeInitial: 20,
    autoConvergeIncrement: 10,
    parallelConnections: 4,
    tlsDestination: 'host',
  };
  expect(libvirt().typedParameters(migrationParameters(all))).toEqual({
    migrate_uri: 'unix:///run/x',
    destination_name: 'new',
    destination_xml: '<domain/>',
    persistent_xml: '<domain/>',
    bandwidth: 2n ** 63n,
    'bandwidth.postcopy': 100n,
    graphics_uri: 'spice://host',
    listen_address: '::',
    migrate_disks: ['vda', 'vdb'],
    disks_port: 49152,
    disks_uri: 'unix:///run/y',
    compression: ['xbzrle', 'mt'],
    'compression.mt.level': 9,
    'compression.mt.threads': 2,
    'compression.mt.dthreads': 3,
    'compression.xbzrle.cache': 2n ** 26n,
    'auto_converge.initial': 20,
    'auto_converge.increment': 10,
    'parallel.connections': 4,
    'tls.destination': 'host',
  });
  expect(migrationParameters({})).toEqual([]);
});

test('a migration takes no other parameters and none of another type', () => {
  for (const wrong of [
    { speed: 1 },
    { toString: 'x' },
    { bandwidth: 'fast' },
    { disks: 'vda' },
    { migrateUri: ['a', 'b'] },
    { disksPort: 1n },
  ]) {
    expect(() => migrationParameters(wrong as never), Object.keys(wrong).join()).toThrow(
      expect.objectContaining({ code: 'E_NATIVE_BOUNDS' }),
    );
  }
});
