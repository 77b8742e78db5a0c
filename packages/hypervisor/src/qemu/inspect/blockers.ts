import { GuestError } from '@vmferry/engine/errors';
import { asGuestError } from '../qmp/errors.ts';
import { migrateReply, type QmpExecutor, statusReply, typed, yankReply } from '../qmp/schema.ts';
import { readRamBlocks } from './ram-blocks.ts';

/** A huge page has to cross whole before a vCPU that waits for a part of it goes on. */
const MAX_POSTCOPY_PAGE_BYTES = 2 * 1024 * 1024;

/** Statuses of query-migrate in which no migration is under way. */
const settled = ['none', 'completed', 'failed', 'cancelled'];

/** Run states that a migration carries over as they are: running, or paused. */
const movable = ['running', 'paused', 'prelaunch', 'watchdog'];

const inTheWay: Readonly<Record<string, readonly [GuestError['code'], what: string, remedy: string]>> = {
  inmigrate: [
    'E_GUEST_BUSY',
    'waits for an incoming migration itself',
    'Let that migration end first, or name the QEMU that runs the guest.',
  ],
  postmigrate: [
    'E_GUEST_BUSY',
    'was migrated away already, or was paused when a migration was given up',
    'Check where the guest runs; only if it runs nowhere, send cont to this QEMU (and stop, to move it paused) and try again.',
  ],
  'finish-migrate': ['E_GUEST_BUSY', 'is being migrated', 'Wait for that migration to end, or cancel it.'],
  colo: ['E_GUEST_BUSY', 'is one half of a COLO pair', 'Leave COLO first.'],
  'save-vm': ['E_GUEST_BUSY', 'is writing a snapshot', 'Try again when the snapshot is written.'],
  'restore-vm': ['E_GUEST_BUSY', 'is loading a snapshot', 'Try again when the snapshot is loaded.'],
  debug: ['E_GUEST_BUSY', 'is stopped by a debugger', 'Let the debugger continue and detach it.'],
  suspended: ['E_GUEST_BLOCKED', 'is suspended (S3)', 'Wake it with system_wakeup, then try again.'],
  shutdown: ['E_GUEST_BLOCKED', 'has shut down', 'Start it on the other host instead.'],
  'internal-error': ['E_GUEST_BLOCKED', 'stopped with an internal error', 'Reset the guest, then try again.'],
  'guest-panicked': ['E_GUEST_BLOCKED', 'has panicked', 'Reset the guest, then try again.'],
  'io-error': [
    'E_GUEST_BLOCKED',
    'is stopped by an input/output error of its storage',
    'Repair the storage and send cont, then try again.',
  ],
};

/**
 * Every reason why this guest cannot be moved now. Changes nothing.
 *
 * @throws GuestError when the monitor does not answer
 */
export async function sourceBlockers(
  client: QmpExecutor,
  { postcopy }: { readonly postcopy: boolean },
): Promise<GuestError[]> {
  try {
    const [{ status }, migration, blocks] = await Promise.all([
      typed(client, 'query-status', statusReply),
      typed(client, 'query-migrate', migrateReply),
      readRamBlocks(client),
    ]);
    const huge = blocks.filter((block) => block.hostPageBytes > MAX_POSTCOPY_PAGE_BYTES);
    return [
      ...runStateBlocker(status),
      ...migrationBlocker(migration.status),
      ...(migration['blocked-reasons'] ?? []).map(refusedByQemu),
      ...(postcopy ? huge.map(({ name, hostPageBytes }) => hugePages(name, hostPageBytes)) : []),
    ];
  } catch (error) {
    throw asGuestError(error);
  }
}

/** Run states whose guest is at its end, or sleeps, which no QEMU before 9.0 takes over as it is. */
const notRunning = ['suspended', 'shutdown', 'internal-error', 'guest-panicked'];

/**
 * What QEMU itself has against a guest that somebody else, who knows of all migrations, will have it migrate. Changes
 * nothing.
 *
 * @throws GuestError when the monitor does not answer
 */
export async function standingBlockers(client: QmpExecutor): Promise<GuestError[]> {
  try {
    const [{ status }, migration] = await Promise.all([
      typed(client, 'query-status', statusReply),
      typed(client, 'query-migrate', migrateReply),
    ]);
    const reasons = (migration['blocked-reasons'] ?? []).map(refusedByQemu);
    return notRunning.includes(status) ? [...runStateBlocker(status), ...reasons] : reasons;
  } catch (error) {
    throw asGuestError(error);
  }
}

/**
 * Every reason why this QEMU cannot take a guest in now. Changes nothing.
 *
 * @throws GuestError when the monitor does not answer
 */
export async function destBlockers(client: QmpExecutor): Promise<GuestError[]> {
  try {
    const { status } = await typed(client, 'query-status', statusReply);
    if (status !== 'inmigrate') {
      return [
        notIncoming(
          `the destination's QEMU does not wait for a migration: it is "${status}"`,
          'start the destination QEMU with -incoming defer -S',
        ),
      ];
    }
    const migration = await incomingUnderWay(client);
    if (migration === undefined) return [];
    return [
      notIncoming(
        `the destination's QEMU listens or loads already (its migration is "${migration}")`,
        'start the destination QEMU with -incoming defer, not with an address, and use it once',
      ),
    ];
  } catch (error) {
    throw asGuestError(error);
  }
}

/** What the incoming migration is doing already, if anything. */
async function incomingUnderWay(client: QmpExecutor): Promise<string | undefined> {
  const { status = 'none' } = await typed(client, 'query-migrate', migrateReply);
  if (status !== 'none') return status;
  // One that was given an address has no status until somebody connects.
  const sockets = await typed(client, 'query-yank', yankReply);
  return sockets.some(({ type }) => type === 'migration') ? 'listening' : undefined;
}

function notIncoming(message: string, remedy: string): GuestError {
  return new GuestError('E_NOT_INCOMING', message, remedy);
}

function runStateBlocker(status: string): GuestError[] {
  if (movable.includes(status)) return [];
  const [code, what, remedy] = inTheWay[status] ?? [
    'E_GUEST_BLOCKED',
    'is in a run state that vmferry does not know',
    'Let the guest run or pause it, then try again.',
  ];
  return [new GuestError(code, `the guest ${what} (run state "${status}")`, remedy)];
}

function migrationBlocker(status = 'none'): GuestError[] {
  if (settled.includes(status)) return [];
  const message = `QEMU has a migration under way already (status "${status}")`;
  return [new GuestError('E_GUEST_BUSY', message, 'Wait for it to end, or cancel it with migrate_cancel.')];
}

function refusedByQemu(reason: string): GuestError {
  const message = `QEMU cannot migrate this guest: ${reason}`;
  return new GuestError(
    'E_GUEST_BLOCKED',
    message,
    'Unplug or unmount what QEMU names, or shut the guest down to move it.',
  );
}

function hugePages(name: string, hostPageBytes: number): GuestError {
  const message = `RAM block ${name} is made of pages of ${hostPageBytes} bytes; post-copy takes up to ${MAX_POSTCOPY_PAGE_BYTES}`;
  return new GuestError(
    'E_GUEST_BLOCKED',
    message,
    'Use --strategy precopy, or give the guest pages of 2 MiB or less.',
  );
}
