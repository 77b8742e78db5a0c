/** What fails on the way: the domain runs on exactly one host, or is paused and can be finished. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import type { RunningMigration } from '@vmferry/agent-core/operations';
import type { DestGuestFactory } from '@vmferry/dest-agent/guests';
import type { DestGuest, SourceGuest } from '@vmferry/engine/guest';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { LibvirtSourceGuest } from '@vmferry/hypervisor/libvirt/source/guest';
import type { SourceGuestFactory } from '@vmferry/source-agent/guests';
import { expect, test } from 'vitest';
import { type Agents, follow, when } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { DomainWatcher } from '../rig/libvirt-guest.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import { overheard, runsOnTheSource } from './support.ts';

const rig = useTwoLibvirts();
/** Slow enough to be in the middle of it. */
const SLOW = 8e6;
const HALTED = 'a: paused (post-copy-failed), b: running (post-copy-failed)';

/** What comes of a pre-copy in the middle of which something happens. */
async function given(
  agents: Agents,
  domain: MovingDomain,
  request: object,
  happens: (migration: RunningMigration) => unknown,
): Promise<MigrationReport> {
  const migration = agents.migrate({
    guest: domain.uri,
    strategy: 'precopy',
    maxBandwidth: SLOW,
    ...request,
  });
  await when(migration, (event) => event.type === 'progress' && event.rawBytes > 8e6);
  await happens(migration);
  return await migration.done;
}

const failed = (code: string) => ({ outcome: 'failed', error: { code, guestRunsOn: 'source' } });

interface Breaking extends Agents {
  /** The source agent's part in the migration, as it ends with the agent's process. */
  endSource(): Promise<void>;
}

/** A domain that leaves; `seen` gets what its libvirt's own connection is carried by. */
const callsOf = (uri: string, seen: (calls: Duplex) => void): Promise<SourceGuest> =>
  overheard(rig.libvirts.hosts.a, uri, ({ kind, stream }) => {
    if (kind === 'rpc') seen(stream);
  });

/** Agents whose wire breaks around a step of the destination's guest, or to whom something else happens there. */
async function breakingAt(step: 'ready' | 'run', happens?: () => Promise<void>): Promise<Breaking> {
  const { libvirts } = rig;
  const { agentSettings } = libvirts.hosts.b;
  const [settings, policy] = [libvirtOptions(agentSettings), libvirtPolicy(agentSettings)];
  let cut = (): unknown => undefined;
  const guests: DestGuestFactory = async (uri) => {
    const guest = await LibvirtDestGuest.connect(uri.slice('libvirt:'.length), settings, policy);
    return new Proxy<DestGuest>(guest, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== 'function') return value;
        const call = value.bind(target) as (...args: unknown[]) => unknown;
        if (key !== step) return call;
        return async (...args: unknown[]) => {
          // After it has been done, and before anybody is told; or before it is done.
          if (step === 'run') await cut();
          const done = await call(...args);
          if (step === 'ready') await cut();
          return done;
        };
      },
    });
  };
  let leaving: SourceGuest | undefined;
  const sources: SourceGuestFactory = async (uri) => {
    const options = libvirtOptions(libvirts.hosts.a.agentSettings);
    leaving = await LibvirtSourceGuest.connect(uri.slice('libvirt:'.length), options);
    return leaving;
  };
  const agents = await libvirts.agents('a', { guests: sources }, { guests });
  cut = happens ?? (() => agents.wire.cut());
  return { ...agents, endSource: async () => await leaving?.close() };
}

test('a domain that is cancelled, cut off in libvirt’s set-up, cut off in pre-copy, wholly or libvirt’s part alone, or cut off when libvirt has finished stays; cut off when the commit was heard it has moved', async () => {
  const { libvirts } = rig;
  const domain = await libvirts.boot();
  const calls: Duplex[] = [];
  let onCalls = (stream: Duplex): unknown => calls.push(stream);
  const plain = await libvirts.agents('a', { guests: (uri) => callsOf(uri, (stream) => onCalls(stream)) });
  const inTheMiddle = async (happens: (m: RunningMigration) => unknown, request: object = {}) => {
    await domain.awaitOn('b');
    const report = await given(plain, domain, request, happens);
    await runsOnTheSource(domain);
    return report;
  };
  expect(await inTheMiddle((migration) => migration.cancel())).toMatchObject({ outcome: 'cancelled' });
  const lost = failed('E_LINK_LOST');
  expect(await inTheMiddle(() => plain.wire.cut(), { to: plain.wire.url })).toMatchObject(lost);
  // The agents' own link holds.
  expect(await inTheMiddle(() => calls.at(-1)?.destroy())).toMatchObject(lost);
  await domain.awaitOn('b');
  onCalls = (stream) => stream.destroy();
  const { report: unbegun } = await follow(plain.migrate({ guest: domain.uri, strategy: 'precopy' }));
  expect(unbegun).toMatchObject(lost);
  await runsOnTheSource(domain);

  await domain.awaitOn('b');
  const atReady = await breakingAt('ready');
  const precopy = { guest: domain.uri, strategy: 'precopy' } as const;
  const { report: unheard } = await follow(atReady.migrate({ ...precopy, to: atReady.wire.url }));
  expect(unheard).toMatchObject(lost);
  await runsOnTheSource(domain);

  const last = await domain.awaitOn('b');
  const atRun = await breakingAt('run');
  // Post-copy would be possible, and is not needed: libvirt takes its guest back then, as long as it is not answered.
  const converging = { guest: domain.uri, strategy: 'auto', maxDowntimeMs: 5000 } as const;
  const { report: committed } = await follow(atRun.migrate({ ...converging, to: atRun.wire.url }));
  expect(committed).toMatchObject({
    outcome: 'attention',
    strategy: 'precopy',
    error: { code: 'E_LINK_LOST', guestRunsOn: 'unknown' },
  });
  await atRun.endSource();
  await last.arrived();
  await expect
    .poll(() => domain.states(), { timeout: 30_000 })
    .toMatch(/^a: (gone|shut-off \(migrated\)), b: running/);
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(1);
}, 90_000);

test('a post-copy whose wire is cut is paused, and finished by resuming it, under the name that it has there', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot({ persistent: true }), await libvirts.agents()];
  const named = { guest: domain.uri, destGuest: `${domain.uri}-there` };
  const there = await domain.awaitOn('b');
  const migration = agents.migrate({
    ...named,
    to: agents.wire.url,
    strategy: 'postcopy',
    maxBandwidth: SLOW,
  });
  await there.runs();
  agents.wire.cut();
  const report = await migration.done;
  expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_LINK_LOST', guestRunsOn: 'dest' } });
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe(HALTED);
  const { report: resumed } = await follow(agents.migrate({ ...named, undefineSource: true, resume: true }));
  expect(resumed.error).toBeNull();
  expect(resumed.outcome).toBe('completed');
  expect(await (await domain.on('b')).isPersistent()).toBe(true);
  expect(await domain.states()).toMatch(/^a: gone, b: running/);
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(1);
  // There is nothing left to finish.
  const { report: again } = await follow(agents.migrate({ ...named, resume: true }));
  expect(again).toMatchObject({ outcome: 'refused', error: { code: 'E_GUEST_UNREACHABLE' } });
}, 90_000);

test('libvirtds that are restarted after the commit, and the loss of libvirt’s own connection: the domain has moved, or is finished by resuming it', async () => {
  const { libvirts } = rig;
  const domain = await libvirts.boot();
  const first = await domain.awaitOn('b');
  // libvirt does not know then whether its guest runs elsewhere, and would leave it paused.
  const told = await breakingAt('run', () => libvirts.restart('a'));
  const { report: moved } = await follow(told.migrate({ guest: domain.uri, strategy: 'precopy' }));
  expect(moved.error).toBeNull();
  await first.arrived();
  expect(await domain.states()).toMatch(/^a: gone, b: running/);

  const inPostcopy = async (agents: Agents, into: 'a' | 'b', happens: () => unknown) => {
    const there = await domain.awaitOn(into);
    const migration = agents.migrate({ guest: domain.uri, strategy: 'postcopy', maxBandwidth: SLOW });
    await there.runs();
    await happens();
    return await migration.done;
  };
  const finishes = async (from: 'a' | 'b', halted: string) => {
    await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe(halted);
    const agents = await libvirts.agents(from);
    const { report } = await follow(agents.migrate({ guest: domain.uri, resume: true }));
    expect(report.error).toBeNull();
  };
  const left = await inPostcopy(await libvirts.agents('b'), 'a', () => libvirts.restart('b'));
  expect(left.error).toBeNull();
  expect(left.notes.join()).toContain('The migration went on without it');
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toMatch(/^a: running .*, b: gone$/);

  const watcher = rig.later(await DomainWatcher.watch(domain.uuid, libvirts.to, 'a'), (each) => each.stop());
  const calls: Duplex[] = [];
  const leaving = await libvirts.agents('a', { guests: (uri) => callsOf(uri, (each) => calls.push(each)) });
  const cut = await inPostcopy(leaving, 'b', () => calls.at(-1)?.destroy());
  expect(cut).toMatchObject({ outcome: 'attention', error: { code: 'E_LINK_LOST', guestRunsOn: 'dest' } });
  await finishes('a', HALTED);
  expect(watcher.handovers()).toHaveLength(1);

  const lost = await inPostcopy(await libvirts.agents('b'), 'a', () => libvirts.restart('a'));
  expect(lost).toMatchObject({
    outcome: 'attention',
    error: { code: 'E_GUEST_UNREACHABLE', guestRunsOn: 'dest' },
  });
  await finishes('b', 'a: running (post-copy-failed), b: paused (post-copy-failed)');
  expect(await domain.states()).toMatch(/^a: running .*, b: gone$/);
  await verifyHistory(domain.places);
}, 90_000);

test('a domain whose link falls silent, or whose libvirtd is restarted, stays', async () => {
  const domain = await rig.libvirts.boot();
  await domain.awaitOn('b');
  const silent = await rig.libvirts.agents();
  const stalled = await given(silent, domain, { to: silent.wire.url }, () => silent.wire.stall());
  expect(stalled).toMatchObject(failed('E_LINK_LOST'));
  await runsOnTheSource(domain);
  await domain.awaitOn('b');
  const restarted = await given(await rig.libvirts.agents(), domain, {}, () => rig.libvirts.restart('a'));
  expect(restarted).toMatchObject(failed('E_GUEST_UNREACHABLE'));
  await runsOnTheSource(domain);
}, 90_000);

test('a post-copy that the destination takes nothing of is paused, though nothing broke', async () => {
  const { libvirts } = rig;
  const [domain, agents] = [await libvirts.boot(), await libvirts.agents('a', { stalledMs: 1500 })];
  const there = await domain.awaitOn('b');
  const migration = agents.migrate({ guest: domain.uri, strategy: 'postcopy', maxBandwidth: SLOW });
  await there.runs();
  const qemu = Number(await readFile(join(libvirts.hosts.b.dir, 'run/qemu', `${domain.name}.pid`), 'utf8'));
  process.kill(qemu, 'SIGSTOP');
  try {
    const report = await migration.done;
    expect(report).toMatchObject({ outcome: 'attention', error: { code: 'E_STALLED', guestRunsOn: 'dest' } });
  } finally {
    process.kill(qemu, 'SIGCONT');
  }
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe(HALTED);
  const { report: resumed } = await follow(agents.migrate({ guest: domain.uri, resume: true }));
  expect(resumed.error).toBeNull();
  await verifyHistory(domain.places);
}, 90_000);
