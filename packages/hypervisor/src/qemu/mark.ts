/**
 * A mark in a QEMU that was prepared to take a guest in, and never told to run it.
 *
 *     opened ── mark ──▶ loading, loaded, paused ── the mark goes, then `cont` ──▶ may run
 *
 * An agent that was restarted has no connection to what it prepared, and another QEMU may have the monitor's path
 * by now. What carries the mark of a session is the one that this session prepared, and whatever it holds never
 * ran, so it may be ended. The mark is an object that no device uses: a secret that is none.
 */
import { z } from 'zod';
import { QmpClient } from './qmp/client.ts';
import { QmpError } from './qmp/errors.ts';
import { type QmpExecutor, statusReply, typed } from './qmp/schema.ts';

const objectsReply = z.array(z.looseObject({ name: z.string() }));
const OBJECTS = '/objects';
const END_TIMEOUT_MS = 10_000;

/** What became of a QEMU that a session had prepared. */
export type EndOfPrepared =
  /** It was ended now. */
  | { readonly found: 'ended' }
  /** It is gone; what has its monitor's path now, if anything, is another or was told to run. */
  | { readonly found: 'gone' }
  /** It may be there still, and was left alone; why. */
  | { readonly found: 'kept'; readonly why: string };

const markOf = (session: string): string => `vmferry-${session}`;

/** A QEMU that cannot carry it only cannot be ended by a restarted agent. */
export async function setMark(client: QmpExecutor, session: string): Promise<void> {
  try {
    await client.execute('object-add', { 'qom-type': 'secret', id: markOf(session), data: 'none' });
  } catch (error) {
    if (!(error instanceof QmpError) || error.code !== 'E_QMP_COMMAND') throw error;
  }
}

/** Whatever is executed after this call finds the mark gone. */
export async function takeMark(client: QmpExecutor, session: string): Promise<void> {
  try {
    await client.execute('object-del', { id: markOf(session) });
  } catch (error) {
    if (!(error instanceof QmpError) || error.code !== 'E_QMP_COMMAND') throw error;
  }
}

/** Ends the QEMU at `path` if it is the one that `session` prepared and never told to run. */
export async function endPrepared(path: string, session: string): Promise<EndOfPrepared> {
  let client: QmpClient;
  try {
    client = await QmpClient.connect(path);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    const nobody = error.code === 'E_QMP_NOT_FOUND' || error.code === 'E_QMP_REFUSED';
    return nobody ? { found: 'gone' } : { found: 'kept', why: error.message };
  }
  try {
    const objects = await typed(client, 'qom-list', objectsReply, { path: OBJECTS });
    if (!objects.some(({ name }) => name === markOf(session))) return { found: 'gone' };
    const { status } = await typed(client, 'query-status', statusReply);
    if (status === 'running') return { found: 'kept', why: 'somebody let its guest run' };
    return await quit(client);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return { found: 'kept', why: error.message };
  } finally {
    await client.close();
  }
}

async function quit(client: QmpClient): Promise<EndOfPrepared> {
  try {
    await client.execute('quit');
  } catch (error) {
    if (!(error instanceof QmpError) || error.code !== 'E_QMP_CLOSED') throw error;
    return { found: 'ended' };
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<EndOfPrepared>((resolve) => {
    const why = `it did not end within ${END_TIMEOUT_MS / 1000} s of being told to`;
    timer = setTimeout(() => resolve({ found: 'kept', why }), END_TIMEOUT_MS);
  });
  const over = client.closed.then((): EndOfPrepared => ({ found: 'ended' }));
  return await Promise.race([over, late]).finally(() => clearTimeout(timer));
}
