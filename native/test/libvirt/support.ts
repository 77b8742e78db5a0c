/** Connections and processes for the tests of the libvirt part, on the driver inside libvirt itself. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ConnectOptions, LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { afterEach } from 'vitest';

export const addonPath =
  process.env['VMFERRY_NATIVE_ADDON'] ??
  fileURLToPath(new URL('../../build/Release/vmferry.node', import.meta.url));

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function later(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'vmferry-libvirt-'));
  later(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A host of its own, unlike `test:///default`, with a domain `one` and, if wanted, a user who has a password. */
export function testUri(options: { readonly user?: string; readonly password?: string } = {}): string {
  const { user, password } = options;
  const auth = user === undefined ? '' : `<auth><user password='${password}'>${user}</user></auth>`;
  const path = join(folder(), 'node.xml');
  writeFileSync(
    path,
    `<node>${auth}${domainXml('one', '11111111-0000-4000-8000-000000000001')}<network><name>net</name>
     <bridge name='br-net'/><ip address='192.168.50.1' netmask='255.255.255.0'><dhcp>
     <range start='192.168.50.2' end='192.168.50.9'/></dhcp></ip></network></node>`,
  );
  return `test://${path}`;
}

export function domainXml(name: string, uuid?: string): string {
  const id = uuid === undefined ? '' : `<uuid>${uuid}</uuid>`;
  return `<domain type='test'><name>${name}</name>${id}<memory unit='KiB'>131072</memory><vcpu>2</vcpu>
    <os><type arch='i686'>hvm</type></os><devices><disk type='file'><source file='/nowhere/${name}'/>
    <target dev='vda'/></disk><interface type='network'><source network='net'/>
    <mac address='52:54:00:11:22:33'/></interface></devices></domain>`;
}

/** Closed after the test. */
export async function connect(uri?: string, options?: ConnectOptions): Promise<LibvirtConnection> {
  const connection = await LibvirtConnection.open(uri ?? testUri(), options);
  later(() => connection.close());
  return connection;
}

/** A socket that takes connections and never says a word. */
export async function silentDaemon(): Promise<{
  readonly uri: string;
  readonly server: Server;
  end(): void;
}> {
  const path = join(folder(), 'socket');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => sockets.add(socket.on('error', () => {})));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const end = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  later(end);
  return { uri: `qemu+unix:///system?socket=${path}`, server, end };
}

/** Runs a script in a process of its own on the raw table, `libvirt`; such a process does not load TypeScript. */
export function runRaw(body: string, env: NodeJS.ProcessEnv = {}) {
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['-e', rawHead + body, addonPath], {
    encoding: 'utf8',
    timeout: 15_000,
    env: { ...process.env, ...env },
  });
  return { stdout, stderr, status, signal };
}

/** For scripts of workers and processes: `libvirt`, `call(name, ...args)`, `open(uri)`. */
export const rawHead = `
  const worker = require('node:worker_threads');
  const table = require(worker.workerData ?? process.argv[1]);
  const { libvirt } = table;
  libvirt.load('libvirt.so.0', 'libvirt-qemu.so.0');
  const call = (name, ...args) => new Promise((resolve, reject) =>
    libvirt[name](...args, (failure, value) => failure ? reject(new Error(failure.message)) : resolve(value)));
  const open = async (uri, onLost = () => {}) =>
    (await call('open', uri, 0, new Uint32Array(0), undefined, 0, 0, onLost)).connection;
`;
