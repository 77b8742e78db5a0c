/**
 * Two hosts in network namespaces, an agent on each, a switch between them and a client beside it. QEMU's own
 * announcement is part of what moves a guest's address; the frames that the agent sends are told from it by
 * their kinds: QEMU sends RARP only.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { incomingBootSector, startBootSector } from '../guest/boot-sector.ts';
import { hostedAgents } from '../peers/hosted-agents.ts';
import type { Frame } from '../rig/capture.ts';
import { verifyHistory } from '../rig/guest.ts';
import { ADDRESSES, guestMac, type TwoHosts, type TwoHostsOptions, twoHosts } from '../rig/two-hosts.ts';

let rig: TwoHosts | undefined;

afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

async function build(options: TwoHostsOptions = {}): Promise<TwoHosts> {
  rig = await twoHosts({ rate: '1gbit', ...options });
  return rig;
}

describe.each(['precopy', 'postcopy', 'hybrid'] as const)('%s between two hosts', (strategy) => {
  test('a client’s TCP connection lives on, and no request on it is lost', async () => {
    const hosts = await build();
    const src = await hosts.startGuest('a');
    const dst = await hosts.startIncoming('b');
    const watcher = await hosts.watch([src.qemu, dst.qemu]);
    const agents = await hostedAgents(hosts, src.qemu.dir);
    const probe = await hosts.probe();
    probe.mark();
    const report = await agents.migrate(`qemu:${src.qemu.productQmp}`, `qemu:${dst.qemu.productQmp}`, [
      ...['--strategy', strategy, '--announce-ip', ADDRESSES.guest],
    ]);
    expect(report).toMatchObject({ outcome: 'completed', strategy, error: null });
    await dst.nextTick();
    const seen = await probe.finish();
    expect(seen).toMatchObject({ survived: true, tcpMissed: 0, counterJumps: 0 });
    await verifyHistory([src, dst]);
    const { handovers } = await watcher.finish();
    expect(handovers).toHaveLength(1);
    // The report's downtime is the guest's own: STOP to RESUME, within what it says of its uncertainty.
    expect(Math.abs(report.downtimeMs - handovers[0]!.downtimeMs)).toBeLessThanOrEqual(
      report.downtimeUncertaintyMs + 2,
    );
  });
});

test('on a slow link little is in flight, so the downtime is what was aimed for', async () => {
  const hosts = await build({ rate: '40mbit' });
  const guest = { textPercent: 100, workingSetMiB: 4, dirtyMBps: 2 };
  const src = await hosts.startGuest('a', guest);
  const dst = await hosts.startIncoming('b', guest);
  const agents = await hostedAgents(hosts, src.qemu.dir);
  const report = await agents.migrate(`qemu:${src.qemu.productQmp}`, `qemu:${dst.qemu.productQmp}`, [
    ...['--strategy', 'precopy', '--max-downtime', '300ms', '--announce-ip', ADDRESSES.guest],
  ]);
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  // 800 ms more are what this link needs for 4 MB: that much was in buffers when batches were of one size.
  expect(report.downtimeMs).toBeLessThan(300 + 600);
  await verifyHistory([src, dst]);
});

test('a silent guest with known addresses is announced by ARP in both forms and by neighbour advertisements, and the switch follows', async () => {
  const hosts = await build({ ipv6: true });
  const guest = { silent: true, ipv6: false, guestAnnounce: false } as const;
  const src = await hosts.startGuest('a', guest);
  const dst = await hosts.startIncoming('b', guest);
  const agents = await hostedAgents(hosts, src.qemu.dir);
  await speakOnce(hosts);
  expect(await hosts.switchPort(guestMac())).toBe('to-a');
  const capture = await hosts.capture('switch', 'to-b', { filter: 'arp or rarp or icmp6', direction: 'in' });
  const report = await agents.migrate(`qemu:${src.qemu.productQmp}`, `qemu:${dst.qemu.productQmp}`, [
    ...['--strategy', 'precopy', '--announce-ip', ADDRESSES.guest, '--announce-ip', ADDRESSES.guest6],
  ]);
  expect(report.outcome).toBe('completed');
  expect(await hosts.switchPort(guestMac())).toBe('to-b');
  // The operator is told at once, and does not wait for what is said again.
  expect(report.announce).toMatchObject({ interfaces: ['br0'], underWay: true });
  const announced = () => ({
    requests: capture.frames.filter((frame) => isArp(frame, 1)),
    replies: capture.frames.filter((frame) => isArp(frame, 2)),
    advertisements: capture.frames.filter(isAdvertisement),
  });
  await capture.waitFor(() => Object.values(announced()).every((frames) => frames.length >= 7));
  await capture.stop();
  const { requests, replies, advertisements } = announced();
  for (const frames of [requests, replies, advertisements]) {
    expect(frames).toHaveLength(7);
    expect(new Set(frames.map((frame) => frame.sourceMac))).toEqual(new Set([guestMac()]));
    expect(frames.at(-1)!.atMs - frames[0]!.atMs).toBeGreaterThan(500);
  }
  expect(requests[0]).toMatchObject({ senderIp: ADDRESSES.guest, targetIp: ADDRESSES.guest });
  expect(advertisements[0]).toMatchObject({
    target: 'fd00:10:0:0:0:0:0:2',
    override: true,
    solicited: false,
  });
  expect(report.announce.frames % 3).toBe(0);
  expect(report.announce.frames).toBeGreaterThanOrEqual(3);
});

test('a silent guest without any known address is announced by RARP, which is not counted in the total time', async () => {
  const hosts = await build({ rate: '10gbit' });
  // It has little memory to send, so that its last page is there long before the last announcement.
  const guest = {
    endMiB: 2,
    nics: [{ kind: 'tap', ifname: 'tap0', mac: guestMac(), guestAnnounce: false }],
  } as const;
  const on = (host: 'a' | 'b', name: string) => ({ name, host, namespace: hosts.namespace(host) });
  const src = hosts.own(await startBootSector(guest, on('a', 'src')));
  const dst = hosts.own(await incomingBootSector(guest, on('b', 'dst')));
  const agents = await hostedAgents(hosts, src.dir);
  const capture = await hosts.capture('switch', 'to-b', { filter: 'rarp', direction: 'in' });
  const report = await agents.migrate(`qemu:${src.productQmp}`, `qemu:${dst.productQmp}`, [
    ...['--strategy', 'postcopy'],
  ]);
  expect(report).toMatchObject({ outcome: 'completed', error: null });
  expect(report.announce.frames).toBeGreaterThanOrEqual(1);
  const spanMs = (): number => capture.frames.at(-1)!.atMs - capture.frames[0]!.atMs;
  await capture.waitFor(() => capture.frames.length >= 7 && spanMs() > 1500);
  await capture.stop();
  expect(new Set(capture.frames.map((frame) => frame.kind))).toEqual(new Set(['rarp']));
  // One that is counted lies before this end; the last is sent 1.8 s after the guest ran.
  const [migration] = await agents.list();
  const endedMs = migration!.startedAt + report.totalMs;
  expect(capture.frames.at(-1)!.atMs - endedMs).toBeGreaterThan(100);
  expect(await hosts.switchPort(guestMac())).toBe('to-b');
});

/** The switch learns where the guest is when it answers once. */
async function speakOnce(hosts: TwoHosts): Promise<void> {
  await hosts.exec('client', ['busybox', 'ping', '-c', '1', '-W', '5', ADDRESSES.guest]);
}

function isArp(frame: Frame, operation: number): frame is Frame & { senderIp: string; targetIp: string } {
  return frame.kind === 'arp' && frame.operation === operation && frame.senderIp === frame.targetIp;
}

function isAdvertisement(frame: Frame): boolean {
  return frame.kind === 'neighbour-advertisement' && frame.sourceMac === guestMac();
}
