/**
 * A mark in a QEMU that was prepared to take a guest in, and never told to run it.
 *
 *     opened ── mark ──▶ loading, loaded, paused ── the mark goes, then `cont` ──▶ may run
 *
 * An agent that was restarted has no connection to what it prepared, and another QEMU may have the monitor's path
 * by now. What carries the mark of a session is the one that this session prepared, and whatever it holds never
 * ran, so it may be ended. The mark is an object that no device uses: a secret that is none.
 *
 * A QEMU whose guest leaves has a mark of its own, which goes when the guest is back. Its data say what was found:
 * whether the guest ran, and the settings for migrations.
 */
import { z } from 'zod';
import { settingsSchema } from './inspect/capabilities.ts';
import { migrationStatus } from './migration-status.ts';
import { QmpClient } from './qmp/client.ts';
import { isClosed, isNobodyThere, isRefusal, QmpError } from './qmp/errors.ts';
import { type QmpExecutor, statusReply, textReply, typed } from './qmp/schema.ts';

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

/** Where a guest stands that a session prepared and that was committed to it. */
export type CommittedHere =
  /** It was never told to run by its agent. QEMU's run state, and its status of the migration. */
  | { readonly found: 'here'; readonly status: string; readonly migration: string }
  | Exclude<EndOfPrepared, { readonly found: 'ended' }>;

const markOf = (session: string): string => `vmferry-${session}`;

/** A QEMU that cannot carry it only cannot be ended by a restarted agent. */
export function setMark(client: QmpExecutor, session: string): Promise<void> {
  return add(client, markOf(session), 'none');
}

/** Whatever is executed after this call finds the mark gone. */
export function takeMark(client: QmpExecutor, session: string): Promise<void> {
  return remove(client, markOf(session));
}

const foundSchema = z.object({ running: z.boolean(), settings: settingsSchema });
/** What a migration found in a QEMU, and leaves there when it comes to nothing. */
export type Found = z.infer<typeof foundSchema>;

const leavingMarkOf = (session: string): string => `vmferry-leaving-${session}`;

/** Before anything is changed. A QEMU that cannot carry it only cannot be settled by a restarted agent. */
export function setLeavingMark(client: QmpExecutor, session: string, found: Found): Promise<void> {
  return add(client, leavingMarkOf(session), JSON.stringify(found));
}

export function takeLeavingMark(client: QmpExecutor, session: string): Promise<void> {
  return remove(client, leavingMarkOf(session));
}

/**
 * What the mark of a guest that leaves in that session says; undefined where there is none.
 *
 * @throws QmpError E_QMP_REPLY if it is not understood
 */
export async function readLeavingMark(client: QmpExecutor, session: string): Promise<Found | undefined> {
  const id = leavingMarkOf(session);
  if (!(await has(client, id))) return undefined;
  const text = await typed(client, 'qom-get', textReply, { path: `${OBJECTS}/${id}`, property: 'data' });
  const read = foundSchema.safeParse(fromJson(text));
  if (read.success) return read.data;
  throw new QmpError('E_QMP_REPLY', `the mark ${id} in QEMU is of another version of vmferry`);
}

async function has(client: QmpExecutor, id: string): Promise<boolean> {
  const objects = await typed(client, 'qom-list', objectsReply, { path: OBJECTS });
  return objects.some(({ name }) => name === id);
}

function fromJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function add(client: QmpExecutor, id: string, data: string): Promise<void> {
  try {
    await client.execute('object-add', { 'qom-type': 'secret', id, data });
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

async function remove(client: QmpExecutor, id: string): Promise<void> {
  try {
    await client.execute('object-del', { id });
  } catch (error) {
    if (!isRefusal(error)) throw error;
  }
}

/** Ends the QEMU at `path` if it is the one that `session` prepared and never told to run. */
export function endPrepared(path: string, session: string): Promise<EndOfPrepared> {
  return withPrepared<EndOfPrepared>(path, session, async (client) => {
    const { status } = await typed(client, 'query-status', statusReply);
    if (status === 'running') return { found: 'kept', why: 'somebody let its guest run' };
    return await quit(client);
  });
}

/** Looks, and touches nothing. */
export function lookAtPrepared(path: string, session: string): Promise<CommittedHere> {
  return withPrepared<CommittedHere>(path, session, async (client) => {
    const { status } = await typed(client, 'query-status', statusReply);
    const migration = await migrationStatus(client);
    return { found: 'here', status, migration };
  });
}

async function withPrepared<T>(
  path: string,
  session: string,
  work: (client: QmpClient) => Promise<T>,
): Promise<T | Exclude<EndOfPrepared, { readonly found: 'ended' }>> {
  let client: QmpClient;
  try {
    client = await QmpClient.connect(path);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    return isNobodyThere(error) ? { found: 'gone' } : { found: 'kept', why: error.message };
  }
  try {
    if (!(await has(client, markOf(session)))) return { found: 'gone' };
    return await work(client);
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
    if (!isClosed(error)) throw error;
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
