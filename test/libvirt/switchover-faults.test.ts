/**
 * What fails while the guest stands still, before its commit: it runs on the source again, in post-copy too, which
 * libvirt by itself never takes back.
 */
import { join } from 'node:path';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import type { DestGuest } from '@vmferry/engine/guest';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { expect, test } from 'vitest';
import { type Agents, follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { repoRoot } from '../rig/repo.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import { overriding } from '../simulated/support.ts';
import { configured, runsOnTheSource, says, settledByDest, settledBySource } from './support.ts';

const rig = useTwoLibvirts();
const DOOMED = join(repoRoot(), 'test/dist/libvirt/doomed-agent.js');

/** Agents to whose wire something happens once the guest is loaded, before anybody is told. */
async function failingWhenLoaded(happens: (agents: Agents) => void): Promise<Agents> {
  const { agentSettings } = rig.libvirts.hosts.b;
  let agents: Agents | undefined;
  const guests = async (uri: string): Promise<DestGuest> => {
    const guest = await LibvirtDestGuest.connect(
      uri.slice('libvirt:'.length),
      libvirtOptions(agentSettings),
      libvirtPolicy(agentSettings),
    );
    return overriding<DestGuest>(guest, {
      ready: async () => {
        await guest.ready();
        happens(agents!);
      },
    });
  };
  agents = await rig.libvirts.agents('a', {}, { guests });
  return agents;
}

/** Of a link that falls silent the source may first miss the destination's word. */
const lost = {
  outcome: 'failed',
  error: { code: expect.stringMatching(/^E_(LINK_LOST|TIMEOUT)$/), guestRunsOn: 'source' },
};

/** What comes of a migration whose agent of that side is killed at a step. */
async function killed(
  domain: MovingDomain,
  { side, step, strategy }: { side: 'source' | 'dest'; step: string; strategy: string },
): Promise<unknown> {
  await domain.awaitOn('b');
  const agents = await rig.libvirts.agents();
  const doomed = (host: 'a' | 'b', args: readonly string[]) =>
    configured(rig, host, (config) => [DOOMED, config, ...args]);
  if (side === 'source') {
    const request = { guest: domain.uri, to: agents.url, strategy };
    const source = await doomed('a', ['source', step, JSON.stringify(request)]);
    await says(source, new RegExp(`at ${step}`));
    source.kill('SIGKILL');
    await source.exited;
    return undefined;
  }
  const dest = await doomed('b', ['dest', step]);
  const [to] = await says(dest, /ws:\/\/127\.0\.0\.1:\d+/);
  const migration = agents.migrate({ guest: domain.uri, to, strategy: strategy as 'precopy' });
  await says(dest, new RegExp(`at ${step}`));
  dest.kill('SIGKILL');
  return await migration.done;
}

/** Of a destination that had promised, and cannot know what came of it, the domain stays there, paused, for its operator. */
async function endLeftover(domain: MovingDomain): Promise<void> {
  await expect
    .poll(() => domain.states(), { timeout: 30_000 })
    .toMatch(/^a: running \(.*\), b: (gone|paused \(.*\))$/);
  await domain.places[0]!.nextTick();
  await domain.on('b').then(
    (left) => left.destroy(),
    () => {},
  );
}

test.each(['precopy', 'postcopy'] as const)(
  'a domain that is loaded when its link is cut or falls silent, or its destination agent is killed, runs on the source (%s)',
  async (strategy) => {
    const domain = await rig.libvirts.boot();
    // A silence takes its time, and is the same in both.
    for (const fault of strategy === 'postcopy' ? (['cut', 'stall'] as const) : (['cut'] as const)) {
      await domain.awaitOn('b');
      const agents = await failingWhenLoaded(({ wire }) => wire[fault]());
      const { report } = await follow(agents.migrate({ guest: domain.uri, to: agents.wire.url, strategy }));
      expect(report).toMatchObject(lost);
      if (fault === 'stall') await endLeftover(domain);
      await runsOnTheSource(domain);
    }
    expect(await killed(domain, { side: 'dest', step: 'loaded', strategy })).toMatchObject(lost);
    await settledByDest(rig.libvirts.hosts.b);
    // After a pre-copy libvirt has taken it for moved, and it could be one that somebody has paused since.
    await endLeftover(domain);
    await runsOnTheSource(domain);
    // As any other that has never been moved.
    expect(await domain.states()).toMatch(/^a: running \((unpaused|migration-canceled)\), b: gone$/);
    const there = await domain.awaitOn('b');
    const agents = await rig.libvirts.agents();
    const { report } = await follow(agents.migrate({ guest: domain.uri, strategy: 'postcopy' }));
    expect(report.error).toBeNull();
    await there.arrived();
    await verifyHistory(domain.places);
    expect(domain.watcher.handovers()).toHaveLength(1);
  },
  120_000,
);

test('a domain that stands still when its source agent is killed runs on the source, in post-copy once another agent is there', async () => {
  const domain = await rig.libvirts.boot();
  await killed(domain, { side: 'source', step: 'stopped', strategy: 'precopy' });
  await runsOnTheSource(domain);
  expect(await settledBySource(rig.libvirts.hosts.a)).toEqual(['rolled-back']);
  await killed(domain, { side: 'source', step: 'stopped', strategy: 'postcopy' });
  // libvirt by itself does not take it back.
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe('a: paused (post-copy-failed), b: gone');
  expect(await settledBySource(rig.libvirts.hosts.a)).toEqual(['rolled-back', 'rolled-back']);
  expect(await domain.states()).toBe('a: running (post-copy), b: gone');
  await domain.places[0]!.nextTick();
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toEqual([]);
}, 90_000);

test('a domain whose agent of either side is killed between its commit and its run never runs twice, and stands whole', async () => {
  const domain = await rig.libvirts.boot();
  // Nobody has been told: libvirt takes it back, whatever the journal says.
  await killed(domain, { side: 'source', step: 'committed', strategy: 'precopy' });
  await endLeftover(domain);
  await runsOnTheSource(domain);
  const last = await domain.awaitOn('b');
  await killed(domain, { side: 'dest', step: 'told', strategy: 'precopy' });
  await last.arrived();
  await expect
    .poll(() => domain.states(), { timeout: 30_000 })
    .toMatch(/^a: (gone|shut-off \(migrated\)), b: paused \(.*\)$/);
  await (await domain.on('b')).resume();
  await domain.places.at(-1)!.nextTick();
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(1);
}, 90_000);
