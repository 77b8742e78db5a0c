/**
 * A halted post-copy's QEMU on the source, before libvirt is asked to resume it.
 *
 *     postcopy-active ── sends nothing: migrate-pause ──▶ postcopy-paused ── resumed to this agent ──▶ active ── hung up on ──▶ paused
 *
 * Resumed to this agent, which has nothing of the guest, it says which RAM blocks it will ask the destination's for: with
 * that the destination's can be asked before (`resumption-relay`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { readRamBlocks } from '../../qemu/inspect/ram-blocks.ts';
import { QmpError } from '../../qemu/qmp/errors.ts';
import { migrateReply, type QmpExecutor, typed } from '../../qemu/qmp/schema.ts';
import { acceptResumption, answerResumption } from '../../qemu/resumption.ts';
import { monitorOf } from '../monitor.ts';
import type { LibvirtOptions } from '../options.ts';
import { Rendezvous } from '../rendezvous.ts';
import { goesOn, neverResumes } from './faults.ts';
import { newRendezvous } from './tokens.ts';

/** A stream that brings nothing for so long is none. */
const STANDS_MS = 3000;
/** From the end of QEMU's stream to its having seen it. */
const PAUSED_MS = 5000;
const POLL_MS = 50;

/**
 * The names of the blocks, QEMU being paused; undefined where it has sent all.
 *
 * @throws GuestError where it can never be resumed
 */
export async function blocksToResume(
  domain: Domain,
  options: LibvirtOptions,
): Promise<readonly string[] | undefined> {
  const monitor = monitorOf(domain);
  const status = await statusWhenPaused(monitor, domain.name);
  if (status === 'completed') return undefined;
  if (status !== 'postcopy-paused') throw neverResumes(domain.name, status);
  const names = await namesOfBlocks(monitor, options);
  const after = await statusWhenPaused(monitor, domain.name);
  if (after !== 'postcopy-paused') throw neverResumes(domain.name, after);
  return names;
}

/**
 * What QEMU says of its migration once it says that it is paused, or in a while.
 *
 * @throws GuestError E_GUEST_BUSY where it goes on
 */
async function statusWhenPaused(monitor: QmpExecutor, name: string): Promise<string> {
  const began = performance.now();
  let sent: number | undefined;
  let told = false;
  for (;;) {
    const { status = 'none', ram } = await typed(monitor, 'query-migrate', migrateReply);
    if (!/^postcopy-(active|recover)/.test(status)) return status;
    const waitedMs = performance.now() - began;
    if (waitedMs > STANDS_MS + PAUSED_MS) return status;
    if (status === 'postcopy-active' && !told) {
      if (sent !== undefined && ram && ram.transferred > sent) throw goesOn(name);
      if (waitedMs > STANDS_MS) {
        told = true;
        await pause(monitor);
      } else if (waitedMs > STANDS_MS / 2) sent ??= ram?.transferred;
    }
    await sleep(POLL_MS);
  }
}

async function pause(monitor: QmpExecutor): Promise<void> {
  try {
    await monitor.execute('migrate-pause');
  } catch (error) {
    // It may have seen it meanwhile.
    if (!(error instanceof QmpError)) throw error;
  }
}

async function namesOfBlocks(monitor: QmpExecutor, options: LibvirtOptions): Promise<readonly string[]> {
  const blocks = new Map((await readRamBlocks(monitor)).map(({ name, bytes }) => [name, bytes]));
  const rendezvous = await Rendezvous.make(options, newRendezvous());
  try {
    const uri = `unix:${rendezvous.there('ram')}`;
    const socket = await acceptResumption(rendezvous.here('ram'), () =>
      monitor.execute('migrate', { uri, resume: true }),
    );
    let names: readonly string[] = [];
    const resumed = (_: unknown, asked: readonly string[]): void => {
      names = asked;
      // Not by halves: it would go on writing, to its end.
      socket.end(() => socket.destroy());
    };
    await answerResumption(socket, { blocks, pagesHere: 'none', resumed }).catch((error: unknown) => {
      if (names.length === 0) throw error;
    });
    return names;
  } finally {
    await rendezvous.remove();
  }
}
