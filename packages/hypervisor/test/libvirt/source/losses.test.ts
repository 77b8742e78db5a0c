import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { GuestError } from '@vmferry/engine/errors';
import { afterEach, expect, test } from 'vitest';
import { RpcProcedure, RpcType } from '../../../src/libvirt/rpc/messages.ts';
import { SourceConnections } from '../../../src/libvirt/source/connections.ts';
import { Losses } from '../../../src/libvirt/source/losses.ts';
import { read, rpcMessage } from '../rpc/support.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const procedure = RpcProcedure.migrateFinish3Params;
const call = rpcMessage({ procedure, serial: 7, payload: Buffer.alloc(8) });
const answer = rpcMessage({ procedure, serial: 7, type: RpcType.reply, payload: Buffer.alloc(4) });

/** A libvirtd that migrates and waits for the answer to its call to finish, which is held back. */
async function finishing(): Promise<{
  readonly libvirtd: Socket;
  readonly connections: SourceConnections;
  readonly said: Promise<GuestError>;
}> {
  const socketDir = await mkdtemp(join(tmpdir(), 'vmferry-losses-'));
  cleanups.push(() => rm(socketDir, { recursive: true }));
  const connections = new SourceConnections({ uri: '', socketDir, socketDirHere: socketDir });
  cleanups.push(() => connections.close());
  let tell: (error: GuestError) => void = () => {};
  const said = new Promise<GuestError>((resolve) => {
    tell = resolve;
  });
  const under = { answer: new Promise(() => {}), ended: false, givenUp: false, explained: () => {} };
  const losses = new Losses(under, tell);
  const rendezvous = await connections.open();
  await connections.serveCalls(
    rendezvous,
    { holdAnswer: true },
    { wanted: () => true, begun: (calls) => void losses.watchCalls(calls) },
  );
  const libvirtd = connect(rendezvous.here('rpc'));
  cleanups.push(() => libvirtd.destroy());
  libvirtd.write(call);
  const tunnel = await tunnelOf(connections);
  await read(tunnel, call.length);
  tunnel.write(answer);
  await losses.finishedThere;
  return { libvirtd, connections, said };
}

async function tunnelOf({ side }: SourceConnections): Promise<Duplex> {
  for await (const { stream } of side) return stream;
  throw new Error('there is no connection');
}

test('a libvirtd that hangs up with its answer held back has its guest again, which is told', async () => {
  const { libvirtd, said } = await finishing();
  libvirtd.destroy();
  expect(await said).toMatchObject({ code: 'E_GUEST_FAILED', message: expect.stringMatching(/gave.*up/) });
});

test('one that was given its answer may hang up', async () => {
  const { libvirtd, connections, said } = await finishing();
  connections.letGo();
  expect(await read(libvirtd, answer.length)).toEqual(answer);
  libvirtd.destroy();
  const nothing = new Promise((resolve) => setImmediate(() => setImmediate(() => resolve('nothing'))));
  expect(await Promise.race([said, nothing])).toBe('nothing');
});
