import { asGuestError } from '@vmferry/hypervisor/libvirt/errors';
import { errorCodes, errorDomains } from '@vmferry/native/libvirt/error-names';
import {
  type LibvirtErrorCode,
  type LibvirtErrorDomain,
  libvirtFailure,
} from '@vmferry/native/libvirt/errors';
import { expect, test } from 'vitest';

const failure = (code: LibvirtErrorCode, call: string, domain: LibvirtErrorDomain) =>
  libvirtFailure({
    ...{ code: 0, message: 'why', call, level: 2, details: [] },
    ...{ number: errorCodes[code], domain: errorDomains[domain] },
  });

test.each([
  ['VIR_ERR_SYSTEM_ERROR', 'virConnectOpenAuth', 'VIR_FROM_RPC', 'E_GUEST_UNREACHABLE', /libvirtd runs/],
  ['VIR_ERR_SYSTEM_ERROR', 'virDomainGetState', 'VIR_FROM_RPC', 'E_GUEST_UNREACHABLE', /libvirtd runs/],
  // A bridge that is not there, an image that cannot be opened: libvirtd is well.
  ['VIR_ERR_SYSTEM_ERROR', 'virDomainMigrateToURI3', 'VIR_FROM_NONE', 'E_GUEST_FAILED', /own words/],
  ['VIR_ERR_SYSTEM_ERROR', 'virDomainMigrateToURI3', 'VIR_FROM_STORAGE', 'E_GUEST_FAILED', /own words/],
  ['VIR_ERR_NO_DOMAIN', 'virDomainLookupByName', 'VIR_FROM_QEMU', 'E_GUEST_UNREACHABLE', /virsh list/],
  ['VIR_ERR_XML_ERROR', 'virDomainMigrateToURI3', 'VIR_FROM_DOMAIN', 'E_GUEST_FAILED', /log/],
] as const)('%s of %s (%s) is %s', (code, call, domain, meaning, remedy) => {
  expect(asGuestError(failure(code, call, domain))).toMatchObject({
    name: 'GuestError',
    code: meaning,
    message: 'libvirt: why',
    remedy: expect.stringMatching(remedy),
  });
});
