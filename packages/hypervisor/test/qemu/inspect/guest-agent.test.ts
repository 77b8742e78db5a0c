import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readGuestAddresses, withAddresses } from '../../../src/qemu/inspect/guest-agent.ts';

const interfaces = [
  {
    name: 'lo',
    'hardware-address': '00:00:00:00:00:00',
    'ip-addresses': [{ 'ip-address': '127.0.0.1', 'ip-address-type': 'ipv4', prefix: 8 }],
  },
  {
    name: 'eth0',
    'hardware-address': '52:54:00:AB:CD:EF',
    'ip-addresses': [
      { 'ip-address': '192.0.2.7', 'ip-address-type': 'ipv4', prefix: 24 },
      { 'ip-address': 'fe80::1', 'ip-address-type': 'ipv6', prefix: 64 },
    ],
  },
  {
    name: 'eth0.5',
    'hardware-address': '52:54:00:ab:cd:ef',
    'ip-addresses': [{ 'ip-address': '198.51.100.7' }],
  },
  { name: 'eth1', 'hardware-address': '52:54:00:00:00:01' },
  { name: 'sit0', 'ip-addresses': [] },
];

let folder: string;
let path: string;
let server: Server;
const sockets: Socket[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmferry-agent-'));
  path = join(folder, 'agent.sock');
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server?.close();
  await rm(folder, { recursive: true });
});

/** An agent that answers the sync with what `sync` makes of its id, and everything else with `answer`. */
const agent = async (
  answer: string,
  sync = (id: unknown): string | null => `\xff{"return": ${id}}\n`,
): Promise<void> => {
  server = createServer((socket) => {
    sockets.push(socket);
    socket.setEncoding('latin1').on('data', (text) => {
      for (const line of String(text).split('\n').filter(Boolean)) {
        // The byte that flushes the agent's parser is part of what it reads.
        const request = JSON.parse(line.replace('\xff', ''));
        const reply = request.execute === 'guest-sync-delimited' ? sync(request.arguments.id) : answer;
        if (reply !== null) socket.write(reply, 'latin1');
      }
    });
  });
  server.listen(path);
  await once(server, 'listening');
};

const good = `${JSON.stringify({ return: interfaces })}\n`;

describe('the guest agent', () => {
  it('tells the addresses by MAC, without loopback', async () => {
    await agent(good);
    const found = await readGuestAddresses(path);
    expect([...found]).toEqual([
      ['52:54:00:ab:cd:ef', ['192.0.2.7', 'fe80::1', '198.51.100.7']],
      ['52:54:00:00:00:01', []],
    ]);
    const nic = { mac: '52:54:00:AB:CD:EF', name: 'net0', addresses: ['192.0.2.7', '192.0.2.8'] };
    expect(withAddresses([nic, { ...nic, mac: '52:54:00:00:00:02' }], found)).toEqual([
      { ...nic, addresses: ['192.0.2.7', '192.0.2.8', 'fe80::1', '198.51.100.7'] },
      { ...nic, mac: '52:54:00:00:00:02' },
    ]);
  });

  it('may still answer an earlier client first', async () => {
    await agent(good, (id) => `{"return": ${id}}\n\xff{"return": 1}\n{"ret\xff{"return": ${id}}\n`);
    expect((await readGuestAddresses(path)).size).toBe(2);
  });

  it.each([
    ['does not listen', good, () => null, 'E_TIMEOUT'],
    ['answers the sync only', '', undefined, 'E_TIMEOUT'],
    ['refuses', '{"error": {"class": "CommandNotFound", "desc": "disabled"}}\n', undefined, 'E_UNSUPPORTED'],
    ['answers without a result', '{}\n', undefined, 'E_PROTOCOL'],
    ['answers no JSON', 'hello\n', undefined, 'E_PROTOCOL'],
    ['lies about addresses', good.replace('192.0.2.7', '192.0.2.7; reboot'), undefined, 'E_PROTOCOL'],
    ['floods', 'x'.repeat(2 << 20), undefined, 'E_LIMIT'],
  ])('that %s is a clear error', async (_, answer, sync, code) => {
    await agent(answer, sync);
    const error = await readGuestAddresses(path, { timeoutMs: 300 }).catch((e: unknown) => e);
    expect(error).toMatchObject({ name: 'GuestError', code, message: expect.stringContaining(path) });
  });

  it('that goes away, or was never there, is a clear error', async () => {
    await expect(readGuestAddresses(path)).rejects.toMatchObject({ code: 'E_GUEST_UNREACHABLE' });
    await agent(good, () => {
      sockets[0]!.end();
      return null;
    });
    await expect(readGuestAddresses(path)).rejects.toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      message: expect.stringContaining('closed before it answered'),
    });
  });
});
