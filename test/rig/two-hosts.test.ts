import { spawnSync } from 'node:child_process';
import { afterEach, expect, test } from 'vitest';
import { verifyHistory } from './guest.ts';
import { migrateByQemu } from './migrate-qemu.ts';
import { cleanupLeftovers } from './netns.ts';
import { ADDRESSES, guestMac, type TwoHosts, twoHosts } from './two-hosts.ts';

let rig: TwoHosts | undefined;

afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

function namespaces(): string {
  return spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
}

test('a guest that moves between two hosts keeps its client, and the switch follows it', async () => {
  rig = await twoHosts({ rate: '1gbit' });
  const options = { silent: true };
  const src = await rig.startGuest('a', options);
  const dst = await rig.startIncoming('b', options);
  const watcher = await rig.watch([src.qemu, dst.qemu]);
  const capture = await rig.capture('client', 'eth0', { filter: 'arp or rarp', direction: 'in' });
  const probe = await rig.probe();
  await src.nextTick();
  expect(await rig.switchPort(guestMac())).toBe('to-a');
  probe.mark();
  await migrateByQemu(src.qemu, dst.qemu, { uri: `tcp:${ADDRESSES.b}:4444` });
  const before = capture.frames.length;
  await dst.qemu.qmp.execute('cont');
  const announced = await capture.waitFor((frame) => capture.frames.indexOf(frame) >= before);
  expect(announced.sourceMac).toBe(guestMac());
  expect(['arp', 'rarp']).toContain(announced.kind);
  for (let i = 0; i < 5; i++) await dst.nextTick();
  expect(await rig.switchPort(guestMac())).toBe('to-b');
  const seen = await probe.finish();
  expect(seen).toMatchObject({ survived: true, tcpMissed: 0, counterJumps: 0 });
  const report = await watcher.finish();
  expect(seen.udpGap.ms).toBeGreaterThan((report.handovers[0]?.downtimeMs ?? Number.NaN) * 0.9);
  await verifyHistory([src, dst]);
});

test('a cut link swallows everything until it heals, and a rate holds in both directions', async () => {
  rig = await twoHosts();
  const ping = (deadline: string) =>
    rig?.exec('a', ['busybox', 'ping', '-q', '-c', '1', '-W', deadline, ADDRESSES.b], { timeoutMs: 10_000 });
  await ping('2');
  await rig.cut();
  await expect(ping('1')).rejects.toThrow('exit 1');
  await rig.heal();
  await ping('2');
  await rig.setRate('100mbit');
  for (const [from, to] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    const mbit = await throughput(rig, from, to);
    expect(mbit).toBeGreaterThan(50);
    expect(mbit).toBeLessThan(125);
  }
});

test('a rig leaves nothing behind, and what a killed run left is removed by the next', async () => {
  rig = await twoHosts();
  const name = rig.namespace('a');
  expect(namespaces()).toContain(name);
  await rig.close();
  expect(namespaces()).not.toContain(name);
  const orphan = 'vmft-1-999999999999-1-a';
  spawnSync('ip', ['netns', 'add', orphan]);
  expect(await cleanupLeftovers()).toContain(orphan);
  expect(namespaces()).not.toContain(orphan);
});

/** TCP between the hosts, in Mbit/s, over 8 MB. From before the first byte left: whoever is late makes it less. */
async function throughput(on: TwoHosts, from: 'a' | 'b', to: 'a' | 'b'): Promise<number> {
  const bytes = 8e6;
  const receive = `const s = require('net').createServer((c) => {
    c.resume().on('end', () => { console.log(Date.now()); process.exit(); }); });
    s.listen(5201, () => console.log('listening'));`;
  const send = `const c = require('net').connect(5201, '${ADDRESSES[to]}', () => {
    console.log(Date.now()); c.end(Buffer.alloc(${bytes})); });`;
  const receiver = on.spawn(to, [process.execPath, '-e', receive]);
  let output = '';
  receiver.child.stdout.setEncoding('utf8');
  await new Promise<void>((resolve) =>
    receiver.child.stdout.on('data', (text: string) => {
      output += text;
      resolve();
    }),
  );
  const { stdout } = await on.exec(from, [process.execPath, '-e', send]);
  await receiver.exited;
  return (bytes * 8e-3) / (Number(output.split('\n')[1]) - Number(stdout));
}
