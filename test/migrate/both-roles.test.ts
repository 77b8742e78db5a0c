/** Two hosts with one agent each: a guest goes there and back by its name, and the agents start the QEMUs. */

import { EventEmitter } from 'node:events';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { run } from '@vmferry/migrate-cli/run';
import { expect, test, vi } from 'vitest';
import { bootSectorHardware } from '../guest/boot-sector.ts';
import { ManagedProcess } from '../rig/process.ts';
import { Qmp } from '../rig/qmp.ts';
import { qemuOf } from '../rig/versions.ts';
import { useLater } from './traces.ts';

const later = useLater();

class Captured extends Writable {
  text = '';
  readonly isTTY = false;

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

/** The command in this process. */
function vmferry(...args: readonly string[]) {
  const [stdout, stderr, signals] = [new Captured(), new Captured(), new EventEmitter()];
  const status = run(args, { stdout, stderr, signals, env: { HOME: '/nonexistent' } });
  return { stdout, stderr, signals, status };
}

interface Host {
  readonly url: string;
  readonly monitor: string;
  /** The guest's QEMU, which takes a guest in. */
  readonly command: readonly string[];
  /** Letters that the guest has written here, one for each pass over its memory. */
  passes(): Promise<number>;
}

async function startHost(dir: string, name: 'a' | 'b'): Promise<Host> {
  const { boot } = await bootSectorHardware();
  if (boot.kind !== 'disk') throw new Error('the boot sector is on a disk');
  const [disk, qmp, monitor, serial] = ['img', 'qmp', 'monitor', 'serial'].map((file) =>
    join(dir, `${name}.${file}`),
  ) as [string, string, string, string];
  await copyFile(boot.image, disk);
  const command = [
    ...[
      qemuOf(name),
      '-accel',
      'tcg',
      '-M',
      'pc',
      '-m',
      '64',
      '-nodefaults',
      '-display',
      'none',
      '-nic',
      'none',
    ],
    ...['-drive', `file=${disk},format=raw,if=ide`, '-serial', `file:${serial}`],
    ...['-qmp', `unix:${qmp},server=on,wait=off`, '-qmp', `unix:${monitor},server=on,wait=off`],
    ...['-S', '-incoming', 'defer'],
  ];
  const config = join(dir, `${name}.json`);
  await writeFile(config, JSON.stringify({ stateDir: join(dir, name), guests: { vm: { qmp, command } } }));
  const line = ['agent', 'host', '--listen', 'ws://127.0.0.1:0', '--config', config, '--no-rehearsal'];
  const agent = later(vmferry(...line), async ({ signals, status }) => {
    signals.emit('SIGTERM');
    expect(await status).toBe(0);
  });
  const url = await vi.waitFor(() => /ws:\/\/127\.0\.0\.1:\d+/.exec(agent.stderr.text)![0], 20_000);
  const passes = async () => (await readFile(serial, 'utf8')).length;
  return { url, monitor, command, passes };
}

/** Whoever runs there is told to end. */
async function end({ monitor }: Host): Promise<void> {
  const qmp = await Qmp.connect(monitor).catch(() => undefined);
  await qmp?.execute('quit').catch(() => {});
  qmp?.close();
}

async function expectRunning({ monitor, passes }: Host): Promise<void> {
  const qmp = await Qmp.connect(monitor);
  expect(await qmp.query('query-status')).toMatchObject({ status: 'running' });
  qmp.close();
  const before = await passes();
  await vi.waitFor(async () => expect(await passes()).toBeGreaterThan(before), 20_000);
}

async function expectEnded({ monitor }: Host): Promise<void> {
  await vi.waitFor(() => expect(Qmp.connect(monitor)).rejects.toThrow(/ECONNREFUSED|ENOENT/), 10_000);
}

async function move(from: Host, to: Host, strategy: string): Promise<MigrationReport> {
  const line = ['migrate', 'qemu:vm', '--from', from.url, '--to', to.url, '--strategy', strategy, '--json'];
  const command = vmferry(...line);
  await command.status;
  return JSON.parse(command.stdout.text) as MigrationReport;
}

test('a guest that is named in both configurations goes there and back, between agents of both roles', async () => {
  const dir = later(await mkdtemp(join(tmpdir(), 'vmt-both-')), (it) =>
    rm(it, { recursive: true, force: true }),
  );
  const a = await startHost(dir, 'a');
  const b = await startHost(dir, 'b');
  later(undefined, async () => {
    await end(a);
    await end(b);
  });
  const alone = a.command.filter((arg) => !['-S', '-incoming', 'defer'].includes(arg));
  later(new ManagedProcess(alone), (qemu) => {
    qemu.kill('SIGKILL');
    return qemu.exited;
  });
  await vi.waitFor(async () => expect(await a.passes()).toBeGreaterThan(1), 20_000);
  expect(await move(b, a, 'precopy')).toMatchObject({
    outcome: 'refused',
    error: { code: 'E_GUEST_UNREACHABLE', side: 'source' },
  });
  for (const [from, to, strategy] of [
    [a, b, 'precopy'],
    [b, a, 'postcopy'],
    [a, b, 'hybrid'],
  ] as const) {
    expect(await move(from, to, strategy)).toMatchObject({ outcome: 'completed', error: null });
    await expectRunning(to);
    await expectEnded(from);
  }
});
