/**
 * A domain that was leaving when its agent ended. Without the agent's connections libvirt gives the migration up by
 * itself and has the domain again, unless it is in post-copy: here it is only looked at.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { shellWord } from '@vmferry/engine/by-hand';
import type { DomainState } from '@vmferry/native/libvirt/states';
import type { Committed, TakenBack } from '../../qemu/left-source.ts';
import { letGo, openLibvirt } from '../answer.ts';
import { asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import { type LibvirtOptions, parseDomainAddress } from '../options.ts';

const SETTLE_TIMEOUT_MS = 30_000;
const POLL_MS = 200;

/** Waits until libvirt has the domain again. */
export async function takenBackDomain(text: string, options: LibvirtOptions): Promise<TakenBack> {
  const state = await stateOf(text, options, ({ reason }) => reason !== 'migration');
  if (!state || state.state === 'shut-off') return { found: 'gone' };
  const { reason } = state;
  const word = shellWord(parseDomainAddress(text, options.uri).name);
  if (reason === 'migration' || isPostcopy(state)) {
    return {
      found: 'kept',
      why: `libvirt has not given its migration up: it is ${state.state} (${reason})`,
      remedy: isPostcopy(state)
        ? `finish the migration with "vmferry resume libvirt:${word}"; never let the domain run on the source`
        : `see libvirt's log; once its job is over (virsh domjobinfo ${word}), start the agent again`,
    };
  }
  return { found: 'here', status: state.state, ranBefore: true };
}

export async function lookAtDomain(text: string, options: LibvirtOptions): Promise<Committed> {
  const state = await stateOf(text, options, () => true);
  if (!state || state.state === 'shut-off') return { found: 'gone' };
  return {
    found: 'here',
    status: state.state,
    migration: isPostcopy(state) ? 'postcopy-paused' : 'completed',
  };
}

function isPostcopy({ reason }: DomainState): boolean {
  return reason === 'post-copy' || reason === 'post-copy-failed';
}

/** Undefined where there is no such domain. */
async function stateOf(
  text: string,
  options: LibvirtOptions,
  enough: (state: DomainState) => boolean,
): Promise<DomainState | undefined> {
  return await asking(async () => {
    const { name, uri } = parseDomainAddress(text, options.uri);
    const connection = await openLibvirt(uri);
    try {
      return await ifThere(async () => {
        const domain = await connection.domainByName(name);
        const deadline = performance.now() + SETTLE_TIMEOUT_MS;
        for (;;) {
          const state = await domain.state();
          if (enough(state) || performance.now() > deadline) return state;
          await sleep(POLL_MS);
        }
      });
    } finally {
      await letGo(connection.close());
    }
  });
}
