import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { expect, test } from 'vitest';
import { answerOf, isLost, letGo, openLibvirt } from '../../src/libvirt/answer.ts';

const never = () => new Promise<string>(() => {});

test('an answer is handed on, and a failure; one that does not come is not waited for', async () => {
  expect(await answerOf('answered', Promise.resolve('yes'))).toBe('yes');
  const refused = new Error('refused');
  await expect(answerOf('answered', Promise.reject(refused))).rejects.toBe(refused);
  await expect(answerOf('ended the domain', never(), 20)).rejects.toMatchObject({
    code: 'E_GUEST_UNREACHABLE',
    message: 'libvirt has not ended the domain within 0.02 s',
  });
});

test('a good-bye that nobody answers is said all the same', async () => {
  await letGo(never(), 20);
  await letGo(Promise.resolve());
});

/** As one that was stopped: the kernel takes connections for it. */
test('a libvirtd that takes connections and says nothing is not waited for', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  const sockets = new Set<Socket>();
  const server = createServer((socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(join(dir, 'silent'), resolve));
  try {
    const uri = `qemu+unix:///system?socket=${join(dir, 'silent')}`;
    await expect(openLibvirt(uri, 100)).rejects.toMatchObject({ code: 'E_GUEST_UNREACHABLE' });
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    await rm(dir, { recursive: true, force: true });
  }
});

test('a connection is known to be lost also where a call of its was the first to know', async () => {
  const lost = { closed: false, once: (_: string, tell: () => void) => setTimeout(tell, 5) };
  setTimeout(() => Object.assign(lost, { closed: true }), 1);
  expect(await isLost(lost as unknown as LibvirtConnection)).toBe(true);
  const alive = { closed: false, once: () => {} };
  expect(await isLost(alive as unknown as LibvirtConnection)).toBe(false);
});
