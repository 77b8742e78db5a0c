/** What cannot work is refused before anything is touched, and the guest runs on, on the source. */
import { chmod, mkdtemp, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ErrorReport } from '@vmferry/engine/errors';
import { exitStatus, type MigrationReport } from '@vmferry/engine/report/report';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  type BootSectorOptions,
  bootSectorHardware,
  checkBootSector,
  incomingBootSector,
  nextPass,
  startBootSector,
} from '../guest/boot-sector.ts';
import { QemuProcess } from '../rig/qemu.ts';
import { Qmp } from '../rig/qmp.ts';
import { qemuOf } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { type Agents, follow, startAgents, when } from './agents.ts';
import { leftInTmp, settingsOf, useLater, usePrivateTmp, waitingState } from './traces.ts';

usePrivateTmp();
const later = useLater();

let agents: Agents;
/** One guest bears all refusals; after each it has to run as if nothing had been, and now and then it moves. */
let src: QemuProcess;
let watcher: RunWatcher;

beforeAll(async () => {
  agents = await startAgents();
  src = await startBootSector({}, { name: 'guest' });
  watcher = await RunWatcher.watch([src]);
});
afterAll(async () => {
  await watcher?.close();
  await src?.stop();
  await agents?.close();
});

interface Refusal {
  readonly code: ErrorReport['code'];
  readonly side: ErrorReport['side'];
  /** Each must be in the message. */
  readonly says: readonly (string | RegExp)[];
  readonly remedy: RegExp;
}

type Request = Parameters<Agents['migrate']>[0];

const qemuUri = (qemu: QemuProcess): string => `qemu:${qemu.productQmp}`;

/** Asks for a migration that must be refused, and holds guest, QEMUs and host against what they were before. */
async function refused(
  request: Omit<Request, 'guest'>,
  expected: Refusal,
  { by = agents, guest = src, dest }: { by?: Agents; guest?: QemuProcess; dest?: QemuProcess } = {},
): Promise<MigrationReport> {
  const settings = await settingsOf(guest);
  const waiting = dest && (await waitingState(dest));
  const journals = await journalsOf(by);
  const { report, events } = await follow(
    by.migrate({ guest: qemuUri(guest), ...(dest ? { destGuest: qemuUri(dest) } : {}), ...request }),
  );
  expectRefusal(report, expected);
  expect(events.at(-1)).toEqual({ type: 'finished', report });
  await nextPass(guest);
  expect(await settingsOf(guest)).toEqual(settings);
  if (dest) expect(await waitingState(dest)).toEqual(waiting);
  expect(await leftInTmp()).toEqual([]);
  expect(await journalsOf(by)).toEqual(journals);
  return report;
}

async function journalsOf({ stateDir }: Agents): Promise<string[]> {
  return (await readdir(stateDir, { recursive: true })).sort();
}

function expectRefusal(report: MigrationReport, { code, side, says, remedy }: Refusal): void {
  expect(report).toMatchObject({ outcome: 'refused', downtimeMs: 0, rawBytes: 0, rounds: [] });
  expect(exitStatus(report)).toBe(2);
  expect(report.error).toMatchObject({ code, side, guestRunsOn: 'source' });
  for (const text of says) expect(report.error?.message).toMatch(text);
  expect(report.error?.remedy).toMatch(remedy);
}

/** The destination takes a guest in all the same: `guest` moves there. */
async function takesIn(
  dest: QemuProcess,
  { guest, by = agents }: { guest: QemuProcess; by?: Agents },
): Promise<MigrationReport> {
  const { report } = await follow(
    by.migrate({ guest: qemuUri(guest), destGuest: qemuUri(dest), strategy: 'postcopy' }),
  );
  expect(report.error).toBeNull();
  expect(report.outcome).toBe('completed');
  await nextPass(dest);
  expect((await checkBootSector(dest)).bad).toEqual([]);
  return report;
}

/** The guest of this file moves, and is there from now on. */
async function moveTo(dest: QemuProcess, by = agents): Promise<MigrationReport> {
  await watcher.add(dest);
  const report = await takesIn(dest, { guest: src, by });
  const left = src;
  src = dest;
  await left.stop();
  return report;
}

/** The watcher tells QEMUs by their names. */
let count = 0;
const name = (what: string): string => `${what}-${++count}`;

/** A destination for this file's guest, which stays when the guest has moved there. */
const destination = async (options: BootSectorOptions = {}): Promise<QemuProcess> =>
  later(
    await incomingBootSector(options, { name: name('dest') }),
    async (q) => q !== src && (await q.stop()),
  );

/** A QEMU with a guest of its own. */
const another = async (options: BootSectorOptions): Promise<QemuProcess> =>
  later(await startBootSector(options, { name: name('other') }), (q) => q.stop());

describe('a socket that is no free QMP monitor', () => {
  test('a path where nothing is, a file, and a socket that speaks otherwise are told apart', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sockets-'));
    const file = join(dir, 'file');
    await writeFile(file, '');
    const chatty = join(dir, 'chatty');
    const server = createServer((socket) => socket.end('220 mail.example.org ESMTP\r\n'));
    await new Promise<void>((resolve) => server.listen(chatty, resolve));
    later(server, async (s) => s.close());
    const dest = await destination();
    const cases = [
      [join(dir, 'none'), /there is no monitor socket at/, /Start QEMU with -qmp unix:PATH/],
      [file, /is not a UNIX socket/, /Name the path that QEMU was given with -qmp/],
      [chatty, /does not speak QMP.*mail\.example\.org/, /Name a socket that QEMU was given with -qmp/],
    ] as const;
    for (const [path, says, remedy] of cases) {
      const expected = { code: 'E_GUEST_UNREACHABLE', says: [path, says], remedy } as const;
      const wrongSource = await follow(agents.migrate({ guest: `qemu:${path}`, destGuest: qemuUri(dest) }));
      expectRefusal(wrongSource.report, { ...expected, side: 'source' });
      await refused({ destGuest: `qemu:${path}` }, { ...expected, side: 'dest' });
    }
    await moveTo(dest);
  });

  test('a monitor that another client holds is named, on either side', async () => {
    const dest = await destination();
    const holder = await Qmp.connect(dest.productQmp);
    const expected = {
      code: 'E_GUEST_UNREACHABLE',
      says: [/another client probably holds this monitor/],
      remedy: /Give QEMU a second -qmp socket/,
    } as const;
    const [fromThere] = await Promise.all([
      follow(agents.migrate({ guest: qemuUri(dest) })),
      refused({}, { ...expected, side: 'dest' }, { dest }),
    ]);
    expectRefusal(fromThere.report, { ...expected, side: 'source' });
    holder.close();
    await moveTo(dest);
  });

  test('a kind of guest that is not supported is said to be so', () => {
    expect(() => agents.migrate({ guest: 'xen:none' })).toThrow(
      'a guest is qemu:/PATH/TO/QMP.SOCK, libvirt:NAME or sim:NAME',
    );
  });
});

describe('a destination that does not wait for a guest', () => {
  test('a QEMU that runs a guest of its own is left alone', async () => {
    const busy = await another({});
    await refused(
      {},
      {
        code: 'E_NOT_INCOMING',
        side: 'dest',
        says: [/does not wait for a migration: it is "running"/],
        remedy: /-incoming defer/,
      },
      { dest: busy },
    );
    await nextPass(busy);
    expect((await checkBootSector(busy)).bad).toEqual([]);
  });

  test('a QEMU that listens already cannot be told to listen for vmferry', async () => {
    const hardware = await bootSectorHardware({ extraArgs: ['-incoming', 'tcp:127.0.0.1:0'] });
    const options = { ...hardware, name: 'listens', role: 'run', autostart: false } as const;
    const listens = later(await QemuProcess.start(options), (q) => q.stop());
    await refused(
      {},
      {
        code: 'E_NOT_INCOMING',
        side: 'dest',
        says: [/listens or loads already/],
        remedy: /-incoming defer, not with an address/,
      },
      { dest: listens },
    );
  });

  test('a QEMU that waits for a guest itself has none to give away', async () => {
    const dest = await destination();
    const waits = await destination();
    const { report } = await follow(agents.migrate({ guest: qemuUri(waits), destGuest: qemuUri(dest) }));
    expectRefusal(report, {
      code: 'E_GUEST_BUSY',
      side: 'source',
      says: [/waits for an incoming migration itself/],
      remedy: /name the QEMU that runs the guest/,
    });
    await moveTo(dest);
  });
});

describe('a destination that is another machine', () => {
  const mismatch = { code: 'E_GUEST_MISMATCH', side: 'dest' } as const;

  test.each([
    {
      what: 'machine type',
      options: { machine: 'pc-i440fx-7.1' },
      says: [/the machine type differs: pc-i440fx-[\d.]+ on the source, pc-i440fx-7\.1 on the destination/],
      remedy: /-machine pc-i440fx-(?!7\.1)/,
    },
    {
      what: 'memory size',
      options: { memoryMiB: 128 },
      says: [/the memory size differs: 67117056 bytes on the source, 134225920 bytes/, /RAM block pc\.ram/],
      remedy: /67117056 bytes of memory/,
    },
    {
      what: 'number of vCPUs',
      options: { smp: 2 },
      says: [/the number of vCPUs differs: 1 on the source, 2 on the destination/],
      remedy: /with 1 vCPUs/,
    },
    {
      what: 'set of RAM blocks',
      options: { extraArgs: ['-device', 'VGA,romfile='] },
      says: [/RAM block \S*vga\.vram \(16 MiB\) is on the destination and not on the source/],
      remedy: /the same devices as the source and no more/,
    },
  ])('another $what is refused, and a guest that fits can still come', async ({ options, says, remedy }) => {
    const dest = await destination(options);
    await refused({}, { ...mismatch, says, remedy }, { dest });
    const guest = await another(options);
    // Two cores: this file's guest is in the way.
    await src.qmp.execute('stop');
    await takesIn(dest, { guest });
    await src.qmp.execute('cont');
  });

  test('a RAM block that is missing is named', async () => {
    const guest = await another({ extraArgs: ['-device', 'VGA,romfile='] });
    const dest = await destination();
    await refused(
      {},
      {
        ...mismatch,
        says: [/RAM block \S*vga\.vram \(16 MiB\) is on the source and not on the destination/],
        remedy: /the same devices, memory back-ends and firmware/,
      },
      { guest, dest },
    );
    await moveTo(dest);
  });

  test('all differences are named at once', async () => {
    const dest = await destination({
      machine: 'q35',
      memoryMiB: 96,
      smp: 2,
      extraArgs: ['-device', 'VGA,romfile='],
    });
    const says = [/machine type/, /number of vCPUs/, /memory size/, /pc\.ram/, /vga\.vram/];
    const remedy = /-machine.*1 vCPUs.*bytes of memory.*no more/;
    await refused({}, { ...mismatch, says, remedy }, { dest });
  });
});

describe('a guest that cannot leave', () => {
  test('QEMU’s own reasons are passed on, all of them', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vvfat-'));
    const vvfat = ['-drive', `if=none,id=fat,file=fat:rw:${folder}`];
    const guest = await another({ extraArgs: [...vvfat, '-device', 'rocker'] });
    const dest = await destination();
    await refused(
      {},
      {
        code: 'E_GUEST_BLOCKED',
        side: 'source',
        says: [/vvfat.*does not support live migration/, /non-migratable device: \S*rocker/],
        remedy: /Unplug or unmount what QEMU names/,
      },
      { guest, dest },
    );
    await moveTo(dest);
  });

  test('one that is being moved already is not moved twice', async () => {
    const dest = await destination();
    const settings = await settingsOf(src);
    const first = agents.migrate({ guest: qemuUri(src), destGuest: qemuUri(dest), maxBandwidth: 2e6 });
    await when(first, (event) => event.type === 'phase' && event.phase === 'precopy');
    const again = (): unknown => agents.migrate({ guest: qemuUri(src), destGuest: qemuUri(dest) });
    expect(again).toThrow(
      expect.objectContaining({
        code: 'E_GUEST_BUSY',
        message: expect.stringContaining(`${qemuUri(src)} is being migrated already`),
        guestRunsOn: 'source',
        remedy: 'wait for it to end, or cancel it',
      }),
    );
    first.cancel();
    const report = await first.done;
    expect(report).toMatchObject({
      outcome: 'cancelled',
      error: { code: 'E_CANCELLED', guestRunsOn: 'source' },
    });
    expect(exitStatus(report)).toBe(130);
    await dest.process.exited;
    await nextPass(src);
    expect(await settingsOf(src)).toEqual(settings);
    expect(await leftInTmp()).toEqual([]);
  });
});

describe('a destination host without userfaultfd', () => {
  /**
   * What the kernel asks for, unless vm.unprivileged_userfaultfd is 1, is CAP_SYS_PTRACE, or (QEMU 8 and newer) that
   * /dev/userfaultfd can be opened.
   */
  async function unprivileged(): Promise<QemuProcess> {
    const binary = join(await mkdtemp(join(tmpdir(), 'bin-')), 'qemu');
    const setpriv = 'setpriv --bounding-set=-sys_ptrace --pdeathsig=KILL';
    const hide = '[ ! -e /dev/userfaultfd ] || mount --bind /dev/null /dev/userfaultfd';
    const inside = `${hide}; exec ${setpriv} ${qemuOf('b')} "$@"`;
    await writeFile(binary, `#!/bin/sh\nexec unshare --mount sh -c '${inside}' qemu "$@"\n`);
    await chmod(binary, 0o755);
    const options = {
      ...(await bootSectorHardware()),
      name: name('dest'),
      role: 'incoming',
      binary,
    } as const;
    return later(await QemuProcess.start(options), async (q) => q !== src && (await q.stop()));
  }

  test.each(['postcopy', 'hybrid'] as const)('%s is refused, and the remedy named', async (strategy) => {
    const dest = await unprivileged();
    const expected = {
      code: 'E_NO_USERFAULTFD',
      side: 'dest',
      says: [/cannot take a guest in by post-copy on this host/],
      remedy: /Run QEMU as root, set vm\.unprivileged_userfaultfd=1/,
    } as const;
    await refused({ strategy }, expected, { dest });
  });

  test('auto goes on by pre-copy and says why', async () => {
    const dest = await unprivileged();
    await watcher.add(dest);
    const { report } = await follow(
      agents.migrate({
        guest: qemuUri(src),
        destGuest: qemuUri(dest),
        strategy: 'auto',
        maxDowntimeMs: 10_000,
      }),
    );
    expect(report.error).toBeNull();
    expect(report).toMatchObject({ outcome: 'completed', strategy: 'precopy' });
    expect(report.notes).toContainEqual(
      expect.stringMatching(/^Post-copy is not possible here: .*on this host/),
    );
    await nextPass(dest);
    expect((await checkBootSector(dest)).bad).toEqual([]);
    const left = src;
    src = dest;
    await left.stop();
  });
});

describe('a destination agent that does not take the guest', () => {
  test('a guest that it is not configured for is refused', async () => {
    const strict = later(await startAgents({ allowGuests: ['qemu:/run/vm/*.sock'] }), (a) => a.close());
    const dest = await destination();
    await refused(
      {},
      {
        code: 'E_REFUSED',
        side: 'dest',
        says: [qemuUri(dest), /does not take .* in/],
        remedy: /add it to allowGuests/,
      },
      { by: strict, dest },
    );
    await moveTo(dest);
  });

  test('a QEMU that the agent started for a guest that does not fit has ended, each time', async () => {
    const qmp = join(await mkdtemp(join(tmpdir(), 'own-')), 'qmp');
    const started = [qemuOf('b'), '-accel', 'tcg', '-m', '32', '-nodefaults', '-display', 'none', '-S'];
    const command = [...started, '-incoming', 'defer', '-qmp', `unix:${qmp},server=on,wait=off`];
    const own = later(await startAgents({ guests: { vm: { qmp, command } } }), (a) => a.close());
    for (let attempt = 1; attempt <= 2; attempt += 1) {
      await refused(
        { destGuest: 'qemu:vm' },
        { code: 'E_GUEST_MISMATCH', side: 'dest', says: [/memory size/], remedy: /of memory/ },
        { by: own },
      );
      await vi.waitFor(() => expect(Qmp.connect(qmp)).rejects.toThrow(/ECONNREFUSED|ENOENT/), {
        timeout: 10_000,
      });
    }
  });

  test('nobody at the address is told as that', async () => {
    const gone = later(await startAgents(), (a) => a.close());
    await gone.closeDest();
    const dest = await destination();
    await refused(
      {},
      {
        code: 'E_CONNECT',
        side: 'source',
        says: [gone.url.replace('ws://', '')],
        remedy: /Start the agent there/,
      },
      { by: gone, dest },
    );
    await moveTo(dest);
  });

  test('plain text to another host is not even tried', async () => {
    const dest = await destination();
    await refused(
      { to: 'ws://192.0.2.1:4447' },
      { code: 'E_CONFIG', side: 'source', says: [/in plain text/], remedy: /Use wss:\/\/ .*--insecure/ },
      { dest },
    );
  });

  test.each([
    ['another token', { token: 'not-the-token-that-is-asked-for' }],
    ['no token', {}],
  ])('%s is refused', async (_, source) => {
    const guarded = later(await startAgents({ token: 'the-token-that-is-asked-for' }, { source }), (a) =>
      a.close(),
    );
    const dest = await destination();
    await refused(
      {},
      { code: 'E_AUTH', side: 'dest', says: [/does not accept the token/], remedy: /the same token file/ },
      { by: guarded, dest },
    );
  });
});

test('all these refusals and moves left a guest that ran in one place at a time', async () => {
  expect((await checkBootSector(src)).bad).toEqual([]);
  const { handovers } = await watcher.finish();
  expect(handovers.length).toBeGreaterThan(5);
});
