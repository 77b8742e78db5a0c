import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { openPacketSocket, type PacketSocket } from '@vmferry/native/packet-socket';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

const addonPath =
  process.env['VMFERRY_NATIVE_ADDON'] ??
  fileURLToPath(new URL('../build/Release/vmferry.node', import.meta.url));

// The process id keeps runs apart that go on at the same time.
const here = `vmfa${process.pid}`;
const there = `vmfb${process.pid}`;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
}

const sockets: PacketSocket[] = [];

function open(...args: Parameters<typeof openPacketSocket>): PacketSocket {
  const socket = openPacketSocket(...args);
  sockets.push(socket);
  return socket;
}

/** Broadcast, of a protocol for experiments (IEEE 802 local), so that no kernel answers. */
function frame(length: number): Uint8Array {
  const bytes = new Uint8Array(length).map((_, i) => i);
  bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x88, 0xb5]);
  return bytes;
}

/** The next frame of that protocol: the kernel sends some of its own (IPv6). */
async function nextFrame(socket: PacketSocket): Promise<Uint8Array | undefined> {
  for (;;) {
    const got = await socket.poll(5000);
    if (got === undefined || (got[12] === 0x88 && got[13] === 0xb5)) return got;
  }
}

const closed = { name: 'NativeError', code: 'E_NATIVE_CLOSED' };
const bounds = { name: 'NativeError', code: 'E_NATIVE_BOUNDS' };

describe('a packet socket', () => {
  beforeAll(() => {
    ip('link', 'add', here, 'address', '52:54:00:aa:bb:01', 'type', 'veth', 'peer', 'name', there);
    ip('link', 'set', here, 'up');
    ip('link', 'set', there, 'up');
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.close();
  });
  afterAll(() => {
    ip('link', 'del', here);
  });

  test('knows its interface', () => {
    const socket = open(here);
    expect(socket).toMatchObject({ interfaceName: here, mtu: 1500, hardwareAddress: '52:54:00:aa:bb:01' });
    expect(socket.interfaceIndex).toBeGreaterThan(0);
    expect(open('lo')).toMatchObject({ hardwareAddress: '00:00:00:00:00:00', interfaceIndex: 1 });
  });

  test('sends frames of every length, unchanged and in order', async () => {
    const sender = open(here);
    const receiver = open(there, { receive: true });
    for (const length of [14, 42, 60, 64, 1514]) {
      sender.send(frame(length));
      expect(await nextFrame(receiver)).toEqual(frame(length));
    }
  });

  test('does not take in what it sent itself', async () => {
    const socket = open(here, { receive: true });
    const peer = open(there, { receive: true });
    socket.send(frame(60));
    expect(await nextFrame(peer)).toEqual(frame(60));
    peer.send(frame(61));
    expect(await nextFrame(socket)).toEqual(frame(61));
  });

  test('refuses what is no Ethernet frame', () => {
    const socket = open(here);
    for (const length of [0, 13, 1519, 100_000]) {
      expect(() => socket.send(new Uint8Array(length))).toThrow(expect.objectContaining(bounds));
    }
    expect(() => socket.send('frame' as never)).toThrow(expect.objectContaining(bounds));
  });

  test('says which system error it met', () => {
    const socket = open(here);
    // One VLAN tag more than the MTU allows, without being a VLAN frame.
    expect(() => socket.send(frame(1518))).toThrow(
      expect.objectContaining({ name: 'NativeError', code: 'E_NATIVE_SYSTEM', errno: 'EMSGSIZE' }),
    );
    ip('link', 'set', here, 'down');
    try {
      expect(() => socket.send(frame(60))).toThrow(
        expect.objectContaining({ code: 'E_NATIVE_SYSTEM', errno: 'ENETDOWN' }),
      );
    } finally {
      ip('link', 'set', here, 'up');
    }
  });

  test('closes any number of times, and is closed then', async () => {
    const socket = open(here, { receive: true });
    const waiting = socket.poll(60_000);
    socket.close();
    socket.close();
    expect(await waiting).toBeUndefined();
    expect(() => socket.send(frame(60))).toThrow(expect.objectContaining(closed));
    await expect(socket.poll(0)).rejects.toMatchObject(closed);
  });

  test('waits no longer than it was told', async () => {
    const socket = open('lo', { receive: true });
    const start = performance.now();
    // Others may use the loopback interface.
    while ((await socket.poll(20)) !== undefined && performance.now() - start < 5000);
    expect(performance.now() - start).toBeLessThan(6000);
    await expect(socket.poll(-1)).rejects.toMatchObject(bounds);
    await expect(socket.poll(60_001)).rejects.toMatchObject(bounds);
    await expect(open('lo').poll(0)).rejects.toMatchObject(bounds);
  });

  test('is refused on an interface that does not exist', () => {
    expect(() => open('vmf-none')).toThrow(
      expect.objectContaining({
        name: 'NativeError',
        code: 'E_NATIVE_SYSTEM',
        errno: 'ENODEV',
        message: "packet socket on 'vmf-none': no such interface (ENODEV)",
      }),
    );
    for (const name of ['', 'sixteen-letters-', 'a\0b']) {
      expect(() => open(name)).toThrow(expect.objectContaining(bounds));
    }
  });

  test('is refused without CAP_NET_RAW', () => {
    const script = `
      try { new (require(process.argv[1]).PacketSocket)('lo', false); }
      catch (error) { console.log(error.code, require('node:util').getSystemErrorName(-error.errno), error.message); }
    `;
    const args = ['--bounding-set=-net_raw', process.execPath, '-e', script, addonPath];
    const { stdout, stderr } = spawnSync('setpriv', args, { encoding: 'utf8' });
    expect({ stdout, stderr }).toEqual({ stdout: '4 EPERM a packet socket needs CAP_NET_RAW\n', stderr: '' });
  });
});
