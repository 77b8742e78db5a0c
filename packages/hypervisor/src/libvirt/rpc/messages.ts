/**
 * The messages between two libvirts, as far as an agent between them has to tell them apart. Sans-I/O.
 *
 *     u32 length (with itself), u32 program, u32 version, u32 procedure, u32 type, u32 serial, u32 status, payload
 *
 * All integers are big-endian (XDR). The numbers are libvirt's remote protocol's, which never change.
 */
import { GuestError } from '@vmferry/engine/errors';

export const HEADER_BYTES = 28;
/** libvirt itself takes no longer ones. */
const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;

export const RpcProgram = { remote: 0x20008086, qemu: 0x20008087, keepAlive: 0x6b656570 } as const;
export const RpcType = { call: 0, reply: 1, message: 2 } as const;
const KeepAlive = { ping: 1, pong: 2 } as const;

export const RpcProcedure = {
  open: 1,
  close: 2,
  supportsFeature: 60,
  authList: 66,
  getUri: 110,
  migratePrepare3Params: 303,
  migrateFinish3Params: 306,
  registerCloseCallback: 360,
  unregisterCloseCallback: 361,
} as const;

export interface RpcMessage {
  readonly program: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly ok: boolean;
  /** All of it. */
  readonly bytes: Buffer;
}

/** Whole messages from pieces. */
export class RpcReader {
  #pending: Buffer[] = [];
  #bytes = 0;

  /** @throws GuestError E_PROTOCOL */
  push(chunk: Uint8Array): RpcMessage[] {
    this.#pending.push(Buffer.from(chunk));
    this.#bytes += chunk.length;
    const messages: RpcMessage[] = [];
    for (let next = this.#next(); next; next = this.#next()) messages.push(next);
    return messages;
  }

  #next(): RpcMessage | undefined {
    if (this.#bytes < 4) return undefined;
    if (this.#pending[0]!.length < HEADER_BYTES) this.#join();
    const length = this.#pending[0]!.readUInt32BE(0);
    if (length < HEADER_BYTES || length > MAX_MESSAGE_BYTES) {
      throw new GuestError(
        'E_PROTOCOL',
        `what came in the place of libvirt's calls is none: a message of ${length} bytes`,
        'report this with the versions of both libvirts',
      );
    }
    if (this.#bytes < length) return undefined;
    const all = this.#join();
    const bytes = all.subarray(0, length);
    this.#pending = all.length > length ? [all.subarray(length)] : [];
    this.#bytes -= length;
    return {
      program: bytes.readUInt32BE(4),
      procedure: bytes.readUInt32BE(12),
      type: bytes.readUInt32BE(16),
      serial: bytes.readUInt32BE(20),
      ok: bytes.readUInt32BE(24) === 0,
      bytes,
    };
  }

  #join(): Buffer {
    const all = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
    this.#pending = [all];
    return all;
  }
}

export function isFinish(message: RpcMessage): boolean {
  return (
    message.program === RpcProgram.remote &&
    message.type === RpcType.call &&
    message.procedure === RpcProcedure.migrateFinish3Params
  );
}

/** Of a call to finish: the source has given the migration up. The last of its arguments. */
export function isCancelled({ bytes }: RpcMessage): boolean {
  return bytes.readUInt32BE(bytes.length - 4) !== 0;
}

/** libvirt's VIR_MIGRATE_PAUSED. */
const PAUSED_FLAG = 1 << 5;

/** The same call to finish, which leaves the guest paused. Its flags stand before the last of its arguments. */
export function leavingPaused(message: RpcMessage): RpcMessage {
  const bytes = Buffer.from(message.bytes);
  const at = bytes.length - 8;
  if (at < HEADER_BYTES) throw notUnderstood('finishes');
  bytes.writeUInt32BE((bytes.readUInt32BE(at) | PAUSED_FLAG) >>> 0, at);
  return { ...message, bytes };
}

export function isPrepare(message: RpcMessage): boolean {
  return (
    message.program === RpcProgram.remote &&
    message.type === RpcType.call &&
    message.procedure === RpcProcedure.migratePrepare3Params
  );
}

/** Sizes of a typed parameter's value by its type: int, uint, llong, ullong, double, boolean; 7 is a string. */
const VALUE_BYTES = [0, 4, 4, 8, 8, 8, 4] as const;
const STRING_TYPE = 7;
const MAX_PARAMETERS = 64;

/**
 * The texts among the parameters of a call to prepare: `destination_xml`, `destination_name`, and others.
 *
 * @throws GuestError E_PROTOCOL for what is not understood: what cannot be checked must not pass
 */
export function textParameters({ bytes }: RpcMessage): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  let at = HEADER_BYTES;
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw notUnderstood('prepares');
    const piece = bytes.subarray(at, at + length);
    // XDR fills up to whole words.
    at += Math.ceil(length / 4) * 4;
    return piece;
  };
  const u32 = (): number => take(4).readUInt32BE(0);
  const text = (): string => take(u32()).toString('utf8');
  const count = u32();
  if (count > MAX_PARAMETERS) throw notUnderstood('prepares');
  for (let index = 0; index < count; index += 1) {
    const field = text();
    const type = u32();
    if (type === STRING_TYPE) {
      // `migrate_disks` may come several times; what matters may not.
      const value = text();
      if (found.has(field) && found.get(field) !== value && CHECKED.has(field))
        throw notUnderstood('prepares');
      found.set(field, value);
    } else take(VALUE_BYTES[type] ?? bytes.length);
  }
  return found;
}

const CHECKED: ReadonlySet<string> = new Set([
  'destination_xml',
  'destination_name',
  'migrate_uri',
  'disks_uri',
]);

function notUnderstood(does: string): GuestError {
  return new GuestError(
    'E_PROTOCOL',
    `the source's libvirt ${does} the migration by a call that is not understood`,
    'report this with the versions of both libvirts',
  );
}

export function isPing({ program, procedure }: RpcMessage): boolean {
  return program === RpcProgram.keepAlive && procedure === KeepAlive.ping;
}

/** The answer to a ping. */
export function pong(): Buffer {
  const message = Buffer.alloc(HEADER_BYTES);
  const words = [HEADER_BYTES, RpcProgram.keepAlive, 1, KeepAlive.pong, RpcType.message, 0, 0];
  words.forEach((word, index) => {
    message.writeUInt32BE(word, index * 4);
  });
  return message;
}
