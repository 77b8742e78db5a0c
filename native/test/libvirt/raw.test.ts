import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { addonPath, connect } from './support.ts';

type Raw = Record<string, (...args: unknown[]) => unknown>;

test('the addon checks every argument of libvirt’s part itself, too', async () => {
  const connection = await connect();
  const domain = await connection.domainByName('one');
  const { libvirt } = createRequire(import.meta.url)(addonPath) as { libvirt: Raw };
  const [c, d] = [connection.handle, domain.handle];
  const ignore = () => undefined;
  const none = new Uint32Array(0);
  const wrong: [string, unknown[]][] = [
    ['load', []],
    ['load', ['libvirt.so.0', 7]],
    ['open', []],
    ['open', [7, 0, none, undefined, 0, 0, ignore, ignore]],
    ['open', ['a\0', 0, none, undefined, 0, 0, ignore, ignore]],
    ['open', ['test:///default', -1, none, undefined, 0, 0, ignore, ignore]],
    ['open', ['test:///default', 0, [], undefined, 0, 0, ignore, ignore]],
    ['open', ['test:///default', 0, none, 'no function', 0, 0, ignore, ignore]],
    ['open', ['test:///default', 0, none, undefined, 0.5, 0, ignore, ignore]],
    ['open', ['test:///default', 0, none, undefined, 0, 0, ignore, 'no function']],
    ['abandon', ['1']],
    ['close', []],
    ['close', [{}, ignore]],
    ['close', [d, ignore]],
    ['close', [c]],
    ['free', [c]],
    ['hostname', [undefined, ignore]],
    ['hostname', [{ ...c }, ignore]],
    ['hostname', [c]],
    ['hostname', [d, ignore]],
    ['lookupByName', [c, 7, ignore]],
    ['lookupByName', [c, 'a\0', ignore]],
    ['lookupById', [c, 2 ** 31, ignore]],
    ['list', [c, 2 ** 32, ignore]],
    ['freePages', [c, none, 0, 2 ** 20, ignore]],
    ['freePages', [c, [4], 0, 1, ignore]],
    ['state', [c, ignore]],
    ['state', [d, 'no function']],
    ['xml', [d, -1, ignore]],
    ['setMaxDowntime', [d, 1, ignore]],
    ['setMaxDowntime', [d, 2n ** 64n, ignore]],
    ['statistics', [c, 'all', 0, 0, ignore]],
    ['statistics', [c, [c], 0, 0, ignore]],
    ['migrate', [d, d, [], 0, ignore]],
    ['migrateToUri', [d, undefined, 'parameters', 0, ignore]],
    ['migrateToUri', [d, undefined, [['x', 99, 1]], 0, ignore]],
    ['migrateToUri', [d, undefined, [['', 1, 1]], 0, ignore]],
    ['migrateToUri', [d, undefined, [['x'.repeat(80), 1, 1]], 0, ignore]],
    ['migrateToUri', [d, undefined, [['x', 4, 1]], 0, ignore]],
    ['typedParameters', [[['x', 1, 1.5]]]],
    ['typedParameters', [[['x', 3, 2n ** 63n]]]],
    ['typedParameters', [[['x', 6, 1]]]],
    ['typedParameters', [[['x', 7, 1]]]],
    ['typedParameters', [[7]]],
    ['subscribe', [c, 99, undefined, ignore, ignore]],
    ['subscribe', [c, 0, c, ignore, ignore]],
    ['subscribe', [c, 0, undefined, 'no function', ignore]],
    ['unsubscribe', [c, 4711, ignore]],
  ];
  for (const [name, args] of wrong) {
    expect(() => libvirt[name]?.(...args), `${name}(${args.map(String).join()})`).toThrow(
      expect.objectContaining({ code: 2 }),
    );
  }
});
