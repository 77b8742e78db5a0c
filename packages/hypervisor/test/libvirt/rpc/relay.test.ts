import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { HEADER_BYTES, pong, RpcProcedure, RpcProgram, RpcType } from '../../../src/libvirt/rpc/messages.ts';
import { CalledRpc, CallingRpc } from '../../../src/libvirt/rpc/relay.ts';
import { read, rpcMessage, socketPair } from './support.ts';

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** libvirtd's own end, and the one that the relay has. */
async function daemon(): Promise<readonly [Socket, Socket]> {
  const pair = await socketPair();
  sockets.push(...pair);
  return pair;
}

const word = (n: number) => Buffer.from([0, 0, 0, n]);
const open = rpcMessage({ procedure: RpcProcedure.open, serial: 1 });
/** Its last arguments: libvirt's flags, and whether the source has given up. */
const finishing = (flags: number, cancelled: boolean) =>
  rpcMessage({
    procedure: RpcProcedure.migrateFinish3Params,
    serial: 7,
    payload: Buffer.concat([word(flags), word(cancelled ? 1 : 0)]),
  });
const finish = finishing(3, false);
const givenUp = finishing(3, true);
const answer = (failed = false) =>
  rpcMessage({
    procedure: RpcProcedure.migrateFinish3Params,
    serial: 7,
    type: RpcType.reply,
    failed,
    payload: word(3),
  });
/** A call to prepare with these parameters, as XDR has them. */
function prepare(...groups: readonly Readonly<Record<string, string | number>>[]): Buffer {
  const u32 = (n: number) => Buffer.from([n >>> 24, n >>> 16, n >>> 8, n]);
  const text = (value: string) => {
    const bytes = Buffer.from(value);
    return Buffer.concat([u32(bytes.length), bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
  };
  const entries = groups.flatMap((group) => Object.entries(group));
  const values = entries.map(([field, value]) =>
    typeof value === 'string'
      ? [text(field), u32(7), text(value)]
      : [text(field), u32(4), u32(0), u32(value)],
  );
  const payload = Buffer.concat([u32(entries.length), ...values.flat(), u32(0)]);
  return rpcMessage({ procedure: RpcProcedure.migratePrepare3Params, payload });
}

const ping = rpcMessage({ program: RpcProgram.keepAlive, procedure: 1, type: RpcType.message, serial: 0 });

describe('the destination’s relay', () => {
  test('keeps the call that finishes until it is released, and passes all else', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    rpc.stream.write(Buffer.concat([open, finish, ping]));
    expect(await read(libvirtd, open.length + ping.length)).toEqual(Buffer.concat([open, ping]));
    rpc.release({ paused: false });
    expect(await read(libvirtd, finish.length)).toEqual(finish);
    libvirtd.write(answer());
    expect(await read(rpc.stream, answer().length)).toEqual(answer());
    expect(await rpc.finished).toBe(true);
  });

  test.each([
    ['before', false],
    ['after', true],
  ])('makes a call to finish that came %s it was released leave the guest paused', async (_, early) => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    if (early) rpc.release({ paused: true });
    rpc.stream.write(finish);
    if (!early) rpc.release({ paused: true });
    // VIR_MIGRATE_PAUSED, beside the flags that were there.
    expect(await read(libvirtd, finish.length)).toEqual(finishing(3 + 32, false));
  });

  test('tells at once that the source has given up', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    rpc.stream.write(givenUp);
    expect(await read(libvirtd, givenUp.length)).toEqual(givenUp);
  });

  test('hears that libvirt did not finish, or that it is gone', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    rpc.release({ paused: false });
    rpc.stream.write(finish);
    await read(libvirtd, finish.length);
    libvirtd.write(answer(true));
    rpc.stream.resume();
    expect(await rpc.finished).toBe(false);
    const [other, mine] = await daemon();
    const gone = new CalledRpc(mine, () => {});
    gone.stream.resume();
    other.destroy();
    expect(await gone.finished).toBe(false);
  });

  test('can be finished without its tunnel when the call had come, and never otherwise', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    rpc.stream.write(finish);
    rpc.stream.destroy();
    await rpc.detached;
    rpc.release({ paused: false });
    await read(libvirtd, finish.length);
    libvirtd.write(answer());
    expect(await rpc.finished).toBe(true);
    const [, mine] = await daemon();
    const unasked = new CalledRpc(mine, () => {});
    unasked.stream.destroy();
    expect(await unasked.finished).toBe(false);
    expect(unasked.asked).toBe(false);
  });

  test('drops a source that asks for what no migration needs', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    const heard: Buffer[] = [];
    libvirtd.on('data', (chunk: Buffer) => heard.push(chunk));
    const failed = once(rpc.stream, 'error');
    // virDomainCreateXML
    rpc.stream.write(rpcMessage({ procedure: 10 }));
    const [error] = (await failed) as [Error];
    expect(error.message).toMatch(/asked for procedure 10 of program 0x20008086/);
    expect(heard).toEqual([]);
  });

  test('has the parameters of a call to prepare looked at before it passes', async () => {
    const [libvirtd, ours] = await daemon();
    const refused: unknown[] = [];
    const rpc = new CalledRpc(ours, (parameters) => {
      if (parameters.get('destination_name') === 'web') return;
      refused.push(Object.fromEntries(parameters));
      throw new Error('not this one');
    });
    const good = prepare({ destination_name: 'web', bandwidth: 7, destination_xml: '<domain/>' });
    rpc.stream.write(good);
    expect(await read(libvirtd, good.length)).toEqual(good);
    const failed = once(rpc.stream, 'error');
    rpc.stream.write(prepare({ destination_xml: '<a/>', destination_name: 'other' }));
    await failed;
    expect(refused).toEqual([{ destination_xml: '<a/>', destination_name: 'other' }]);
  });

  test.each([
    ['too short', (call: Buffer) => call.writeUInt32BE(9, HEADER_BYTES)],
    ['of a type that is not known', (call: Buffer) => call.writeUInt32BE(99, HEADER_BYTES + 4 + 4 + 16)],
    ['two in one', () => prepare({ destination_name: 'web' }, { destination_name: 'other' })],
  ])('lets no call to prepare pass that is %s', async (_, spoil) => {
    const [, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    const call = prepare({ destination_name: 'web' });
    const other = spoil(call);
    const failed = once(rpc.stream, 'error');
    rpc.stream.write(typeof other === 'object' ? other : call);
    const [error] = (await failed) as [Error];
    expect(error.message).toContain('a call that is not understood');
  });

  test('does not hang up on libvirt when its tunnel breaks, until it is told to', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CalledRpc(ours, () => {});
    rpc.stream.destroy();
    await rpc.detached;
    libvirtd.write(ping);
    expect(await read(libvirtd, HEADER_BYTES)).toEqual(pong());
    const closed = once(libvirtd, 'close');
    libvirtd.resume();
    rpc.hangUp();
    await closed;
    await rpc.ended;
  });
});

describe('the source’s relay', () => {
  test('keeps the good answer that ends the guest here until it is let go', async () => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CallingRpc(ours, { holdAnswer: true });
    libvirtd.write(finish);
    expect(await read(rpc.stream, finish.length)).toEqual(finish);
    rpc.stream.write(Buffer.concat([answer(), ping]));
    expect(await read(libvirtd, ping.length)).toEqual(ping);
    await rpc.held;
    expect(rpc.holds).toBe(true);
    // By now it needs nobody's word any more.
    rpc.stream.destroy();
    await rpc.detached;
    rpc.letGo();
    expect(rpc.holds).toBe(false);
    expect(await read(libvirtd, answer().length)).toEqual(answer());
  });

  test.each([
    ['a bad answer', true, answer(true), finish],
    ['the answer to having given up', true, answer(), givenUp],
    ['any answer, where none is to be kept', false, answer(), finish],
  ])('passes %s at once', async (_, holdAnswer, reply, call) => {
    const [libvirtd, ours] = await daemon();
    const rpc = new CallingRpc(ours, { holdAnswer });
    libvirtd.write(call);
    await read(rpc.stream, call.length);
    rpc.stream.write(reply);
    expect(await read(libvirtd, reply.length)).toEqual(reply);
  });

  test.each([true, false])(
    'hears that the destination is prepared once it goes on there (%s), or is hung up on',
    async (goesOn) => {
      const [libvirtd, ours] = await daemon();
      let decide: (goesOn: boolean) => void = () => {};
      const decided = new Promise<boolean>((resolve) => {
        decide = resolve;
      });
      const rpc = new CallingRpc(ours, { holdAnswer: false, prepared: () => decided });
      const call = prepare({ migrate_uri: 'unix:///run/ram' });
      libvirtd.write(call);
      await read(rpc.stream, call.length);
      const prepared = rpcMessage({
        procedure: RpcProcedure.migratePrepare3Params,
        type: RpcType.reply,
        payload: word(3),
      });
      rpc.stream.write(Buffer.concat([prepared, ping]));
      expect(await read(libvirtd, ping.length)).toEqual(ping);
      decide(goesOn);
      if (goesOn) expect(await read(libvirtd, prepared.length)).toEqual(prepared);
      else {
        libvirtd.resume();
        await once(libvirtd, 'close');
      }
    },
  );
});
