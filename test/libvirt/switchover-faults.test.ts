/**
 * What fails in post-copy while the guest stands still, before its commit: it runs on the source again, although libvirt
 * by itself never takes it back. After a pre-copy: `fault-matrix.test.ts`.
 */
import { join } from 'node:path';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import type { DestGuest } from '@vmferry/engine/guest';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { expect, test } from 'vitest';
import { StagedAgent } from '../faults/staged.ts';
import type { Step } from '../faults/steps.ts';
import { type Agents, follow } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';
import { overriding } from '../simulated/support.ts';
import { runsOnTheSource, settledBySource } from './support.ts';

const rig = useTwoLibvirts();

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

/** An agent in a process of its own, whose guest waits at a step. */
async function staged(host: HostName, step: Step): Promise<StagedAgent> {
  const { dir, agentSettings } = rig.libvirts.hosts[host];
  const options = { stateDir: join(dir, 'state'), libvirt: agentSettings };
  const agent = await StagedAgent.start(host === 'a' ? 'source' : 'dest', options);
  agent.hold(step);
  return rig.later(agent, (each) => each.stop());
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

test('a post-copy whose link is cut or falls silent when it is loaded, or whose destination agent is killed then, runs on the source', async () => {
  const domain = await rig.libvirts.boot();
  const request = { guest: domain.uri, strategy: 'postcopy' } as const;
  for (const fault of ['cut', 'stall'] as const) {
    await domain.awaitOn('b');
    const agents = await failingWhenLoaded(({ wire }) => wire[fault]());
    const { report } = await follow(agents.migrate({ ...request, to: agents.wire.url }));
    expect(report).toMatchObject(lost);
    if (fault === 'stall') await endLeftover(domain);
    await runsOnTheSource(domain);
  }
  await domain.awaitOn('b');
  const agents = await rig.libvirts.agents();
  const dest = await staged('b', 'ready-done');
  const loaded = dest.at('ready-done');
  const { done } = agents.migrate({ ...request, to: dest.url });
  await loaded;
  await dest.kill();
  expect(await done).toMatchObject(lost);
  await runsOnTheSource(domain);
  // As any other that has never been moved.
  expect(await domain.states()).toBe('a: running (unpaused), b: gone');
  const there = await domain.awaitOn('b');
  const { report } = await follow(agents.migrate(request));
  expect(report.error).toBeNull();
  await there.arrived();
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toHaveLength(1);
}, 120_000);

test('a post-copy that stands still when its source agent is killed runs on the source once another agent is there', async () => {
  const domain = await rig.libvirts.boot();
  await domain.awaitOn('b');
  const { url: to } = await rig.libvirts.agents();
  const source = await staged('a', 'state-complete');
  const stopped = source.at('state-complete');
  source.migrate({ guest: domain.uri, to, strategy: 'postcopy' });
  await stopped;
  await source.kill();
  // libvirt by itself does not take it back.
  await expect.poll(() => domain.states(), { timeout: 30_000 }).toBe('a: paused (post-copy-failed), b: gone');
  expect(await settledBySource(rig.libvirts.hosts.a)).toEqual(['rolled-back']);
  expect(await domain.states()).toBe('a: running (post-copy), b: gone');
  await domain.places[0]!.nextTick();
  await verifyHistory(domain.places);
  expect(domain.watcher.handovers()).toEqual([]);
}, 90_000);
