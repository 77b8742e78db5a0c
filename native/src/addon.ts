/** The addon's table, as cc/addon.cc fills it. Only this package's modules use it. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { NativeError } from './errors.ts';
import type { LibvirtTable } from './libvirt/table.ts';

/** Called on the event loop when a job is done. Code 0 is success; then there is no message and no errno. */
export type Settle = (
  code: number,
  value0: number,
  value1: number,
  value2: number,
  value3: number,
  message?: string,
  errno?: number,
) => void;

export interface NativePacketSocket {
  readonly interfaceIndex: number;
  readonly mtu: number;
  readonly hardwareAddress: string;
  send(frame: Uint8Array): void;
  receive(buffer: Uint8Array, timeoutMs: number, settle: Settle): void;
  close(): void;
}

export interface NativeLocalSocket {
  accept(settle: Settle): void;
  adopt(): void;
  receive(buffer: Uint8Array, atLeast: number, lingerMs: number, settle: Settle): void;
  send(bytes: Uint8Array, settle: Settle): void;
  sendInterleaved(first: Uint8Array, second: Uint8Array, lengths: Uint32Array, settle: Settle): void;
  trySend(bytes: Uint8Array): number;
  peerPid(): number;
  close(): void;
}

/** The numbers are those of `LaneEventKind` in cc/lane_mailbox.h, which says what comes with each. */
export const LaneEvent = {
  message: 1,
  sent: 2,
  ping: 3,
  pong: 4,
  closed: 5,
  violation: 6,
  failed: 7,
  ended: 8,
} as const;

export type OnLaneEvent = (
  kind: number,
  a: number,
  b: number,
  c: number,
  bytes?: Buffer,
  text?: string,
) => void;

export interface NativeFrameLane {
  lend(buffer: Uint8Array): number;
  recycle(index: number): void;
  send(bytes: Uint8Array, binary: boolean): boolean;
  ping(): void;
  close(payload: Uint8Array): void;
  terminate(): void;
}

export interface NativeTable {
  readonly features: { readonly lz4: boolean; readonly xxhash: boolean; readonly libvirt: boolean };
  /** Where `checksum` leaves its result: upper half, lower half. */
  readonly sum: Uint32Array;
  checksum(src: Uint8Array, seed: number): void;
  checksumAsync(src: Uint8Array, settle: Settle): void;
  pack(src: Uint8Array, dst: Uint8Array, codec: number, acceleration: number, settle: Settle): void;
  unpack(
    src: Uint8Array,
    dst: Uint8Array,
    codec: number,
    rawBytes: number,
    hi: number,
    lo: number,
    settle: Settle,
  ): void;
  scanZero(src: Uint8Array, pageBytes: number, out: Uint8Array): number;
  scanZeroAsync(src: Uint8Array, pageBytes: number, out: Uint8Array, settle: Settle): void;
  hash128(src: Uint8Array, pageBytes: number, out: Uint32Array, settle: Settle): void;
  readRecords(
    cursor: Float64Array,
    input: Uint8Array,
    pages: Uint32Array,
    kinds: Uint8Array,
    content: Uint8Array,
  ): void;
  readonly LocalSocket: new (path: string, listen: boolean, sendBufferBytes: number) => NativeLocalSocket;
  readonly FrameLane: new (
    fd: number,
    server: boolean,
    maxMessageBytes: number,
    prefix: Uint8Array,
    onEvent: OnLaneEvent,
  ) => NativeFrameLane;
  readonly PacketSocket: new (interfaceName: string, receive: boolean) => NativePacketSocket;
  /** Absent where `features.libvirt` is false. */
  readonly libvirt?: LibvirtTable;
}

/** As seen from src/ and from dist/ alike. The variable is for builds kept elsewhere (sanitizers). */
function addonPath(): string {
  const elsewhere = process.env['VMFERRY_NATIVE_ADDON'];
  return elsewhere ?? fileURLToPath(new URL('../build/Release/vmferry.node', import.meta.url));
}

function load(): NativeTable {
  const path = addonPath();
  try {
    return createRequire(import.meta.url)(path) as NativeTable;
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND';
    const what = missing ? 'the native addon is not built' : `the native addon ${path} does not load`;
    throw new NativeError('E_NATIVE_MISSING', `${what}: run 'make build'`, { cause });
  }
}

let table: NativeTable | undefined;

/** Loads the addon on first use, so that importing a module never throws. */
export function addon(): NativeTable {
  table ??= load();
  return table;
}
