import { setTimeout as sleep } from 'node:timers/promises';
import { shellWord } from '@vmferry/engine/by-hand';
import type { EndOfPrepared } from '../../qemu/mark.ts';
import { letGo, openLibvirt } from '../answer.ts';
import { asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import type { ImageRecord } from '../images/record.ts';
import { type LibvirtOptions, parseDomainAddress } from '../options.ts';

/** From an agent's end to its libvirt's having ended what was coming in; QEMU takes its time under emulation. */
const ENDED_MS = 10_000;
const POLL_MS = 200;

/**
 * What became of a domain that was coming in when its agent ended. libvirt ends such a one by itself, unless it had taken
 * it for moved: that is paused, and cannot be told from one that an operator has paused since. Where none is active the
 * `images` that were created for it are removed; they are left out for one that was committed, whose own they are.
 */
export async function leftDomain(
  text: string,
  options: LibvirtOptions,
  images?: ImageRecord,
): Promise<EndOfPrepared> {
  return await asking(async () => {
    const { name } = parseDomainAddress(text, options.uri);
    const connection = await openLibvirt(options.uri);
    try {
      const stateOf = () => ifThere(async () => await (await connection.domainByName(name)).state());
      const deadline = performance.now() + ENDED_MS;
      let state = await stateOf();
      while (state?.state === 'paused' && performance.now() < deadline) {
        await sleep(POLL_MS);
        state = await stateOf();
      }
      if (state?.state === 'paused') {
        const why = `the domain ${name} is paused here: if it runs on its source, end it (virsh destroy ${shellWord(name)})`;
        return { found: 'kept', why };
      }
      // Of one that runs nobody here knows what it runs on.
      if (state === undefined || state.state === 'shut-off') await images?.removeImages();
      return { found: 'gone' };
    } finally {
      await letGo(connection.close());
    }
  });
}
