/** What fails while disks are copied, before anything of the memory is: the domain runs on the source, and no image is left. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { SideConnection } from '@vmferry/engine/guest';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { expect, test } from 'vitest';
import { type Agents, when } from '../migrate/agents.ts';
import { verifyHistory } from '../rig/guest.ts';
import { type ManagedProcess, run } from '../rig/process.ts';
import { type MovingDomain, useTwoLibvirts } from '../rig/two-libvirts.ts';
import type { HostName } from '../rig/versions.ts';
import { type CommandOptions, command, overheard, runsOnTheSource, says, settledByDest } from './support.ts';

const rig = useTwoLibvirts();
/** Slow enough to be in the middle of the disk. */
const SLOW = 8e6;
const UNTOUCHED = randomBytes(32 << 20);

const imagesOn = (host: HostName) => join(rig.libvirts.hosts[host].dir, 'lib', 'images');

/** A domain that writes to a disk that the hosts do not share. */
async function boot(): Promise<MovingDomain> {
  for (const host of ['a', 'b'] as const) await mkdir(imagesOn(host), { recursive: true });
  await writeFile(join(imagesOn('a'), 'data.raw'), Buffer.concat([Buffer.alloc(8 << 20), UNTOUCHED]));
  return await rig.libvirts.boot({
    disk: '/dev/vda',
    devices: `<disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/data.raw'/><target dev='vda' bus='virtio'/></disk>`,
  });
}

/** Agents whose source's QEMU and libvirt are heard of when they connect to the destination's. */
async function listening(
  heard: (connection: SideConnection) => unknown,
  limits: { readonly stalledMs?: number } = {},
): Promise<Agents> {
  return await rig.libvirts.agents('a', {
    guests: (uri) => overheard(rig.libvirts.hosts.a, uri, heard),
    ...limits,
  });
}

/** What comes of a migration in the middle of whose disks something happens. */
async function given(
  agents: Agents,
  domain: MovingDomain,
  request: object,
  happens: () => unknown,
): Promise<MigrationReport> {
  await domain.awaitOn('b');
  const migration = agents.migrate({
    guest: domain.uri,
    strategy: 'precopy',
    copyStorage: 'all',
    maxBandwidth: SLOW,
    ...request,
  });
  await when(
    migration,
    (event) => event.type === 'progress' && event.phase === 'setup' && (event.disks?.copiedBytes ?? 0) > 4e6,
  );
  await happens();
  return await migration.done;
}

async function nothingIsLeft(domain: MovingDomain): Promise<void> {
  await runsOnTheSource(domain);
  await expect.poll(() => readdir(imagesOn('b')), { timeout: 30_000 }).toEqual([]);
}

/** The destination's QEMU, and perhaps its libvirtd, answer nobody until they are let go on, and nothing breaks. */
async function halt(domain: MovingDomain, how: 'qemu' | 'all'): Promise<() => void> {
  const { dir, daemonPid } = rig.libvirts.hosts.b;
  const qemu = Number(await readFile(join(dir, 'run/qemu', `${domain.name}.pid`), 'utf8'));
  const pids = how === 'all' ? [qemu, daemonPid] : [qemu];
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  let halted = true;
  return rig.later(
    () => {
      if (halted) for (const pid of pids) process.kill(pid, 'SIGCONT');
      halted = false;
    },
    async (goOn) => goOn(),
  );
}

async function destCommand(
  how?: CommandOptions,
): Promise<{ readonly process: ManagedProcess; readonly url: string }> {
  const args = ['agent', 'dest', '--no-rehearsal', '--listen', 'ws://127.0.0.1:0'];
  const process = await command(rig, 'b', args, how);
  const [url] = await says(process, /ws:\/\/127\.0\.0\.1:\d+/);
  return { process, url };
}

/** Its own file system for the destination's images, as its libvirtd sees it, and an agent that sees it as well. */
async function destWithRoom(mebibytes: number) {
  const images = '/var/lib/libvirt/images';
  const inside = ['nsenter', `--mount=/proc/${rig.libvirts.hosts.b.daemonPid}/ns/mnt`];
  const shell = (script: string) => run([...inside, 'sh', '-ec', script]);
  await shell(`mount -t tmpfs -o size=${mebibytes}m none ${images}`);
  rig.later(shell, async (each) => {
    await each(`umount ${images}`);
  });
  const settings = { imageDirectories: [images] };
  const { url } = await destCommand({ settings, inside });
  return {
    url,
    shell: (script: string) => shell(`cd ${images}; ${script}`),
    images: async () => (await shell(`ls ${images}`)).stdout.trim(),
  };
}

const failed = (code: string, phase = 'setup') => ({
  outcome: 'failed',
  error: { code, phase, guestRunsOn: 'source' },
});

test('disks that are not copied on, for a while, at the deadline or from the start, end the migration; the domain stays', async () => {
  const domain = await boot();
  const agents = await rig.libvirts.agents('a', { stalledMs: 2000 });
  let goOn = (): void => {};
  const stalled = await given(agents, domain, {}, async () => {
    goOn = await halt(domain, 'all');
  });
  // Nothing of the destination was needed for it.
  await domain.places[0]!.nextTick();
  goOn();
  expect(stalled).toMatchObject(failed('E_STALLED'));
  expect(stalled.error?.message).toMatch(
    /^Nothing of the disks has been copied for 2 s, and .* MiB are left\.$/,
  );
  await nothingIsLeft(domain);

  const late = await given(agents, domain, { deadlineMs: 4000 }, () => {});
  expect(late).toMatchObject(failed('E_DEADLINE'));
  await nothingIsLeft(domain);

  const silent = await listening(
    async ({ kind }) => {
      if (kind === 'nbd') goOn = await halt(domain, 'qemu');
    },
    { stalledMs: 2000 },
  );
  await domain.awaitOn('b');
  const unanswered = silent.migrate({ guest: domain.uri, strategy: 'precopy', copyStorage: 'all' });
  const report = await unanswered.done;
  goOn();
  expect(report).toMatchObject(failed('E_STALLED'));
  expect(report.error?.message).toContain("The source's hypervisor has not answered for 2");
  await nothingIsLeft(domain);
  await verifyHistory(domain.places);
}, 90_000);

test('a domain whose disks are cut off, or whose agent of either side is killed meanwhile, stays; so does one whose disks find no room, before or meanwhile', async () => {
  const domain = await boot();
  const disks: Duplex[] = [];
  const agents = await listening(({ kind, stream }) => {
    if (kind === 'nbd') disks.push(stream);
  });
  // The agents' own link holds.
  const disk = await given(agents, domain, {}, () => disks.at(-1)?.destroy());
  expect(disk).toMatchObject(failed('E_LINK_LOST'));
  expect(disk.error?.message).toContain('connection to a disk there broke');
  await nothingIsLeft(domain);
  expect(await given(agents, domain, { to: agents.wire.url }, () => agents.wire.cut())).toMatchObject(
    failed('E_LINK_LOST'),
  );
  await nothingIsLeft(domain);

  await domain.awaitOn('b');
  const source = await command(rig, 'a', [
    ...['migrate', domain.uri, '--to', agents.url, '--strategy', 'precopy', '--max-bandwidth', '8MB/s'],
    ...['--copy-storage', 'all', '--events', '-'],
  ]);
  await says(source, /"phase":"setup".*"copiedBytes":[4-9]\d{6}/);
  source.kill('SIGKILL');
  await nothingIsLeft(domain);

  const dest = await destCommand();
  expect(await given(agents, domain, { to: dest.url }, () => dest.process.kill('SIGKILL'))).toMatchObject(
    failed('E_LINK_LOST'),
  );
  await runsOnTheSource(domain);
  expect(await readdir(imagesOn('b'))).toEqual(['data.raw']);
  await settledByDest(rig.libvirts.hosts.b);
  await nothingIsLeft(domain);

  const narrow = await destWithRoom(64);
  const fill = () => narrow.shell('head -c 64M /dev/zero >> filler || true');
  const full = await given(agents, domain, { to: narrow.url }, fill);
  expect(full).toMatchObject(failed('E_GUEST_FAILED'));
  expect(full.error?.message).toContain('could not be copied to the destination: No space left on device');
  await runsOnTheSource(domain);
  await expect.poll(narrow.images, { timeout: 30_000 }).toBe('filler');
  await fill();
  await domain.awaitOn('b');
  const refused = await agents.migrate({ guest: domain.uri, to: narrow.url, copyStorage: 'all' }).done;
  expect(refused).toMatchObject({
    outcome: 'refused',
    error: { code: 'E_NO_SPACE', side: 'dest', phase: 'preflight' },
  });
  expect(refused.error?.message).toMatch(/^the disks need .* in .*\/images, and 0 bytes are free/);
  expect(await narrow.images()).toBe('filler');
  await runsOnTheSource(domain);
  await verifyHistory(domain.places);
}, 120_000);
