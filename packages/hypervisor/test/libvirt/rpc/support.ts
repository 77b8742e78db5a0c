import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { HEADER_BYTES, RpcProgram, RpcType } from '../../../src/libvirt/rpc/messages.ts';

export interface RpcFields {
  readonly program?: number;
  readonly procedure: number;
  readonly type?: number;
  readonly serial?: number;
  readonly failed?: boolean;
  readonly payload?: Uint8Array;
}

/** One of libvirt's messages; a call of the remote program unless said otherwise. */
export function rpcMessage(fields: RpcFields): Buffer {
  const { program = RpcProgram.remote, procedure, type = RpcType.call, serial = 1 } = fields;
  const { failed = false, payload = new Uint8Array(0) } = fields;
  const header = Buffer.alloc(HEADER_BYTES);
  const length = HEADER_BYTES + payload.length;
  [length, program, 1, procedure, type, serial, failed ? 1 : 0].forEach((word, index) => {
    header.writeUInt32BE(word, index * 4);
  });
  return Buffer.concat([header, payload]);
}

/** Two ends of one connection. */
export async function socketPair(): Promise<readonly [Socket, Socket]> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const far = await accepted;
  server.close();
  return [near, far];
}

/** Resolves with the next so many bytes. */
export async function read(from: NodeJS.ReadableStream, bytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let got = 0;
  return await new Promise((resolve) => {
    const take = (chunk: Buffer): void => {
      pieces.push(chunk);
      got += chunk.length;
      if (got < bytes) return;
      from.off('data', take);
      from.pause();
      resolve(Buffer.concat(pieces));
    };
    from.on('data', take);
    from.resume();
  });
}
