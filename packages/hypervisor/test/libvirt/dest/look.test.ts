import type { GuestDescription } from '@vmferry/engine/guest';
import { expect, test } from 'vitest';
import type { DestDomain } from '../../../src/libvirt/dest/domain.ts';
import { DestLook } from '../../../src/libvirt/dest/look.ts';
import type { DestPolicy } from '../../../src/libvirt/preflight/dest.ts';

const options = { uri: 'qemu:///system', socketDir: '/run/vmferry', socketDirHere: '/run/vmferry' };
const description = {
  kind: 'libvirt',
  libvirt: { uuid: '1', rendezvous: 'r', socketDir: '/run/vmferry' },
} as unknown as GuestDescription;

test.each([
  ['running', 'post-copy-failed', 'active', undefined],
  // Its libvirtd was restarted meanwhile, and hears of no halt: it is asked.
  ['running', 'post-copy', 'active', undefined],
  ['paused', 'io-error', 'active', 'E_REFUSED'],
  ['running', 'migrated', 'none', 'E_GUEST_MOVED'],
  ['paused', 'user', 'none', 'E_GUEST_MOVED'],
  ['shut-off', 'destroyed', 'none', 'E_GUEST_GONE'],
])('a domain that is %s (%s), its job %s, may be finished, or it is told why not: %s', async (...row) => {
  const [state, reason, type, code] = row;
  const domain = {
    name: 'web1',
    described: () => {},
    state: async () => ({ state, reason }),
    handle: async () => ({ jobInfo: async () => ({ type }) }),
    connection: { host: { hypervisorVersion: async () => 7002022 } },
  } as unknown as DestDomain;
  const result = await new DestLook(domain, options, {} as DestPolicy).rejoin(description);
  expect(result.ok ? undefined : result.reasons.map((each) => each.code).join()).toBe(code);
});
