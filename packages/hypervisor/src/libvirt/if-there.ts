import { isLibvirtError } from '@vmferry/native/libvirt/errors';

/**
 * What libvirt says of a domain, or undefined where there is none. A domain that libvirt is ending may go between any two
 * questions: all that are asked of it belong into one `ask`.
 */
export async function ifThere<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (isLibvirtError(error, 'VIR_ERR_NO_DOMAIN')) return undefined;
    throw error;
  }
}
