import type { DomainState } from '@vmferry/native/libvirt/states';
import { expect, test, vi } from 'vitest';
import type { SourceDomain } from '../../../src/libvirt/source/domain.ts';
import { endMoved, untilUndefined } from '../../../src/libvirt/source/ending.ts';

/** A domain that has ended, whose definition goes after so many looks. */
function ended(looks: number) {
  let looked = 0;
  const undefine = vi.fn(() => Promise.resolve());
  const handle = { undefine } as unknown as SourceDomain['handle'];
  const stateOrGone = async (): Promise<DomainState | undefined> => {
    looked += 1;
    return looked > looks ? undefined : { state: 'shut-off', reason: 'migrated' };
  };
  return { domain: { handle, stateOrGone }, undefine };
}

test('a definition that libvirt is about to take away is waited for', async () => {
  const { domain, undefine } = ended(2);
  await untilUndefined(domain);
  expect(undefine).not.toHaveBeenCalled();
});

test('one that it leaves is taken away', async () => {
  const { domain, undefine } = ended(Number.POSITIVE_INFINITY);
  await untilUndefined(domain, 0);
  expect(undefine).toHaveBeenCalledExactlyOnceWith(['keep-nvram']);
});

test.each([
  ['paused', 'post-copy', ['destroy']],
  ['paused', 'post-copy-failed', ['destroy']],
  ['paused', 'user', 'E_REFUSED'],
  ['running', 'post-copy', 'E_REFUSED'],
  ['running', 'unpaused', 'E_REFUSED'],
  ['shut-off', 'migrated', []],
] as const)('what is left of a domain that has moved, %s (%s), is ended where it may be', async (...row) => {
  const [state, reason, expected] = row;
  const done: string[] = [];
  const handle = { name: 'web1', destroy: async () => void done.push('destroy') };
  const domain = { handle, stateOrGone: async () => ({ state, reason }) } as unknown as SourceDomain;
  const code = await endMoved(domain, false).catch((error: { readonly code: string }) => error.code);
  expect(code ?? done).toEqual(expected);
});
