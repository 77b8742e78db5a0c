/** What an error of libvirt's means for the guest. */
import { type ErrorCode, GuestError } from '@vmferry/engine/errors';
import { NativeError } from '@vmferry/native/errors';
import { LibvirtError, type LibvirtErrorCode } from '@vmferry/native/libvirt/errors';

const meanings: Partial<Record<LibvirtErrorCode, readonly [ErrorCode, remedy: string]>> = {
  VIR_ERR_NO_DOMAIN: ['E_GUEST_UNREACHABLE', 'Name a domain that `virsh list` shows on that host.'],
  VIR_ERR_AUTH_FAILED: ['E_GUEST_UNREACHABLE', 'Run the agent as root or as a member of the group libvirt.'],
  VIR_ERR_AUTH_UNAVAILABLE: [
    'E_GUEST_UNREACHABLE',
    'Run the agent as root or as a member of the group libvirt.',
  ],
  VIR_ERR_NO_CONNECT: ['E_GUEST_UNREACHABLE', 'Check that libvirtd runs, and the URI given with --libvirt.'],
  VIR_ERR_OPERATION_INVALID: ['E_GUEST_FAILED', "See libvirt's own words in the message."],
  VIR_ERR_OPERATION_TIMEOUT: ['E_GUEST_BUSY', 'Wait for the job that libvirt has under way for this domain.'],
};

/** A call of the kernel's failed: on the way to libvirtd, or one that libvirtd itself made. */
const ofSystem = ({ call, domain }: LibvirtError): readonly [ErrorCode, remedy: string] =>
  call === 'virConnectOpenAuth' || domain === 'VIR_FROM_RPC'
    ? ['E_GUEST_UNREACHABLE', 'Check that libvirtd runs, and the URI given with --libvirt.']
    : ['E_GUEST_FAILED', "See libvirt's own words in the message."];

/** Errors that are neither libvirt's nor the binding's come back as they are. */
export function asGuestError(error: unknown): unknown {
  if (error instanceof LibvirtError) {
    const known =
      error.code === 'VIR_ERR_SYSTEM_ERROR'
        ? ofSystem(error)
        : Object.hasOwn(meanings, error.code)
          ? meanings[error.code as LibvirtErrorCode]
          : undefined;
    const [code, remedy] = known ?? ['E_GUEST_FAILED', "See libvirt's log on that host."];
    return new GuestError(code, `libvirt: ${error.message}`, remedy, { cause: error });
  }
  if (error instanceof NativeError) {
    const missing = error.code === 'E_NATIVE_MISSING';
    return new GuestError(
      missing ? 'E_UNSUPPORTED' : 'E_NATIVE',
      error.message,
      missing ? 'Install libvirt on this host.' : "See the agent's log.",
      { cause: error },
    );
  }
  return error;
}

/** Runs work whose errors are told as the guest's. */
export async function asking<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asGuestError(error);
  }
}
