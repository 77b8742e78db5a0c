import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  isCancelled,
  isFinish,
  isPing,
  pong,
  RpcProcedure,
  RpcProgram,
  RpcReader,
  RpcType,
} from '../../../src/libvirt/rpc/messages.ts';
import { rpcMessage } from './support.ts';

describe('a reader of libvirt’s calls', () => {
  test('finds the same messages however the bytes are cut', () => {
    const message = fc.record({
      procedure: fc.integer({ min: 1, max: 500 }),
      serial: fc.integer({ min: 0, max: 0xffff_ffff }),
      payload: fc.uint8Array({ maxLength: 300 }),
    });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.nat(60)), (messages, cuts) => {
        const all = Buffer.concat(messages.map((fields) => rpcMessage(fields)));
        const reader = new RpcReader();
        const found: Buffer[] = [];
        let at = 0;
        for (const cut of [...cuts, all.length]) {
          found.push(...reader.push(all.subarray(at, at + cut)).map(({ bytes }) => bytes));
          at = Math.min(all.length, at + cut);
        }
        expect(Buffer.concat(found)).toEqual(all);
        expect(found).toHaveLength(messages.length);
      }),
    );
  });

  test.each([
    ['shorter than its header', 12],
    ['longer than libvirt takes', 64 * 1024 * 1024],
  ])('refuses a message that is %s', (_, length) => {
    const bytes = rpcMessage({ procedure: 1 });
    bytes.writeUInt32BE(length, 0);
    expect(() => new RpcReader().push(bytes)).toThrow(`a message of ${length} bytes`);
  });

  test('tells the call to finish from others, and whether the source has given up', () => {
    const one = (fields: Parameters<typeof rpcMessage>[0]) => new RpcReader().push(rpcMessage(fields))[0]!;
    const finish = RpcProcedure.migrateFinish3Params;
    const word = (n: number) => Buffer.from([0, 0, 0, n]);
    const good = one({ procedure: finish, payload: word(0) });
    expect([isFinish(good), isCancelled(good)]).toEqual([true, false]);
    const givenUp = one({ procedure: finish, payload: word(1) });
    expect([isFinish(givenUp), isCancelled(givenUp)]).toEqual([true, true]);
    expect(isFinish(one({ procedure: finish, type: RpcType.reply, payload: word(0) }))).toBe(false);
    expect(isFinish(one({ procedure: RpcProcedure.open }))).toBe(false);
    expect(isPing(one({ program: RpcProgram.keepAlive, procedure: 1, type: RpcType.message }))).toBe(true);
    expect(new RpcReader().push(pong())).toMatchObject([
      { program: RpcProgram.keepAlive, procedure: 2, type: RpcType.message, serial: 0, ok: true },
    ]);
  });
});
