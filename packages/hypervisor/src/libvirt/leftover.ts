import { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import type { EndOfPrepared } from '../qemu/mark.ts';
import { asking } from './errors.ts';
import { type LibvirtOptions, parseDomainAddress } from './options.ts';

/**
 * What became of a domain that was coming in when its agent ended. libvirt ends such a one by itself, unless it had taken
 * it for moved: that is paused, and cannot be told from one that an operator has paused since.
 */
export async function leftDomain(text: string, options: LibvirtOptions): Promise<EndOfPrepared> {
  return await asking(async () => {
    const { name } = parseDomainAddress(text, options.uri);
    const connection = await LibvirtConnection.open(options.uri);
    try {
      const { state } = await (await connection.domainByName(name)).state();
      if (state !== 'paused') return { found: 'gone' };
      return {
        found: 'kept',
        why: `the domain ${name} is paused here: if it runs on its source, destroy it`,
      };
    } catch (error) {
      if (isLibvirtError(error, 'VIR_ERR_NO_DOMAIN')) return { found: 'gone' };
      throw error;
    } finally {
      await connection.close();
    }
  });
}
