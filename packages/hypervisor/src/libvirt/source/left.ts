/**
 * A domain that was leaving when its agent ended. Without the agent's connections libvirt gives the migration up by
 * itself and has the domain again. One in post-copy it never takes back: there that is done here, where QEMU can.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { shellWord } from '@vmferry/engine/by-hand';
import { messageOf } from '@vmferry/engine/errors';
import type { Domain } from '@vmferry/native/libvirt/domain';
import type { DomainState } from '@vmferry/native/libvirt/states';
import type { Committed, TakenBack } from '../../qemu/left-source.ts';
import { letGo, openLibvirt } from '../answer.ts';
import { asGuestError, asking } from '../errors.ts';
import { ifThere } from '../if-there.ts';
import { type LibvirtOptions, parseDomainAddress } from '../options.ts';
import { JOB_STAYS, undoHalted } from './undo-halted.ts';

const SETTLE_TIMEOUT_MS = 30_000;
const POLL_MS = 200;

/** Waits until libvirt has the domain again. Only one that was not committed. */
export async function takenBackDomain(text: string, options: LibvirtOptions): Promise<TakenBack> {
  let remark: string | undefined;
  const state = await withDomain(text, options, async (domain) => {
    const found = await settled(domain);
    if (found.reason !== 'post-copy-failed') return found;
    try {
      await undoHalted(domain, options);
      remark = JOB_STAYS;
    } catch (error) {
      remark = messageOf(asGuestError(error));
    }
    return await domain.state();
  });
  if (!state || state.state === 'shut-off') return { found: 'gone' };
  const { reason } = state;
  const word = shellWord(parseDomainAddress(text, options.uri).name);
  if (reason === 'migration' || (isPostcopy(state) && state.state !== 'running')) {
    return {
      found: 'kept',
      why: `libvirt has not given its migration up: it is ${state.state} (${reason})${remark ? `; ${remark}` : ''}`,
      remedy: isPostcopy(state)
        ? `finish the migration with "vmferry resume libvirt:${word}"; never let the domain run on the source`
        : `see libvirt's log; once its job is over (virsh domjobinfo ${word}), start the agent again`,
    };
  }
  return {
    found: 'here',
    status: state.state,
    ranBefore: true,
    ...(remark === undefined ? {} : { remark }),
  };
}

export async function lookAtDomain(text: string, options: LibvirtOptions): Promise<Committed> {
  const state = await withDomain(text, options, (domain) => domain.state());
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

/** Its state once libvirt moves it no more, or does for too long. */
async function settled(domain: Domain): Promise<DomainState> {
  const deadline = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const state = await domain.state();
    const moving = state.reason === 'migration' || state.reason === 'post-copy';
    if (!moving || performance.now() > deadline) return state;
    await sleep(POLL_MS);
  }
}

/** Undefined where there is no such domain. */
async function withDomain(
  text: string,
  options: LibvirtOptions,
  work: (domain: Domain) => Promise<DomainState>,
): Promise<DomainState | undefined> {
  return await asking(async () => {
    const { name, uri } = parseDomainAddress(text, options.uri);
    const connection = await openLibvirt(uri);
    try {
      return await ifThere(async () => await work(await connection.domainByName(name)));
    } finally {
      await letGo(connection.close());
    }
  });
}
