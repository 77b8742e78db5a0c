import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { DestConnections } from '../../../src/libvirt/dest/connections.ts';
import type { DestDomain } from '../../../src/libvirt/dest/domain.ts';
import { read } from '../rpc/support.ts';

test('the QEMU of a halted post-copy is connected to with the first bytes for it', async () => {
  const socketDir = await mkdtemp(join(tmpdir(), 'vmferry-'));
  const options = { uri: 'qemu:///system', socketDir, socketDirHere: socketDir };
  const connections = new DestConnections({ name: 'web1' } as DestDomain, options, () => {});
  await connections.open('0'.repeat(24), { finishesAtOnce: true });
  const came: Socket[] = [];
  const qemu = createServer((socket) => came.push(socket)).listen(connections.memoryPath);
  await once(qemu, 'listening');
  try {
    const memory = await connections.connectSide('ram');
    const later = connect({ path: connections.memoryPath });
    await once(qemu, 'connection');
    expect(came).toHaveLength(1);
    memory.write('resume');
    await once(qemu, 'connection');
    expect(String(await read(came[1]!, 6))).toBe('resume');
    came[1]!.end('goes on');
    expect(String(await read(memory, 7))).toBe('goes on');
    later.destroy();
  } finally {
    connections.close();
    for (const socket of came) socket.destroy();
    qemu.close();
    await rm(socketDir, { recursive: true });
  }
});
