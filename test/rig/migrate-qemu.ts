import type { QemuProcess } from './qemu.ts';

export class QemuMigrationError extends Error {
  readonly code = 'TEST_QEMU_MIGRATION_FAILED';
}

export interface QemuMigrationPlan {
  /** What the destination listens on and the source connects to, `tcp:10.77.0.2:4444` or `unix:/path`. */
  readonly uri: string;
  readonly capabilities?: readonly string[];
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Post-copy begins as soon as the migration is active. */
  readonly postcopy?: boolean;
  /** Default 120 s. */
  readonly timeoutMs?: number;
}

export interface QemuMigrationResult {
  /** By QEMU's account, ms. */
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly ramBytes: number;
  /** When the source began and when it had completed, milliseconds since 1970. */
  readonly startedAtMs: number;
  readonly completedAtMs: number;
}

/** QEMU's own migration, from start to `completed` on the source. The link is the limit unless told otherwise. */
export async function migrateByQemu(
  src: QemuProcess,
  dst: QemuProcess,
  plan: QemuMigrationPlan,
): Promise<QemuMigrationResult> {
  const timeoutMs = plan.timeoutMs ?? 120_000;
  const names = ['events', ...(plan.capabilities ?? [])];
  const capabilities = names.map((capability) => ({ capability, state: true }));
  const parameters = { 'max-bandwidth': 10_000_000_000, ...plan.parameters };
  for (const { qmp } of [dst, src]) {
    await qmp.execute('migrate-set-capabilities', { capabilities });
    await qmp.execute('migrate-set-parameters', parameters);
  }
  await dst.qmp.execute('migrate-incoming', { uri: plan.uri });
  const from = src.qmp.events.length;
  const fromDst = dst.qmp.events.length;
  const startedAtMs = performance.timeOrigin + performance.now();
  await src.qmp.execute('migrate', { uri: plan.uri });
  if (plan.postcopy) {
    await src.qmp.waitForEvent((e) => e.event === 'MIGRATION' && e.data['status'] === 'active', {
      from,
      timeoutMs,
    });
    await src.qmp.execute('migrate-start-postcopy');
  }
  const settled = await src.qmp.waitForEvent(
    (e) =>
      e.event === 'MIGRATION' &&
      ['completed', 'failed', 'cancelled', 'postcopy-paused'].includes(String(e.data['status'])),
    { from, timeoutMs },
  );
  const info = await accounts(src, settled.data['status'] === 'completed');
  if (settled.data['status'] !== 'completed') {
    throw new QemuMigrationError(
      `migration ${settled.data['status']}: ${info['error-desc'] ?? src.process.stderr}`,
    );
  }
  await dst.qmp.waitForEvent((e) => e.event === 'MIGRATION' && e.data['status'] === 'completed', {
    from: fromDst,
    timeoutMs,
  });
  const ram = info['ram'] as { transferred: number };
  return {
    totalMs: info['total-time'] as number,
    downtimeMs: info['downtime'] as number,
    ramBytes: ram.transferred,
    startedAtMs,
    completedAtMs: settled.atMs,
  };
}

/** QEMU emits `completed` a moment before it has added up its times, and says nothing when it has. */
async function accounts(src: QemuProcess, completed: boolean): Promise<Readonly<Record<string, unknown>>> {
  for (;;) {
    const info = await src.qmp.query('query-migrate');
    if (!completed || (info['total-time'] !== 0 && info['downtime'] !== undefined)) return info;
  }
}
