/**
 * Guest addresses as an announcement may carry them. Everything that reaches the frame builders has passed
 * through here, so no builder can be made to speak for an address that is not one guest's own.
 */
import { isIPv4, isIPv6 } from 'node:net';

/** An address, interface option or schedule that cannot be announced with. Nothing was sent. */
export class AnnounceInputError extends Error {
  override readonly name = 'AnnounceInputError';
  readonly code = 'E_ANNOUNCE';

  constructor(
    message: string,
    /** What the operator can do about it, as a sentence. */
    readonly remedy: string,
  ) {
    super(message);
  }
}

declare const checked: unique symbol;

/** A unicast MAC that is not all zeros. */
export interface GuestMac {
  readonly [checked]: 'mac';
  /** Lower case, with colons. */
  readonly text: string;
  /** 6 bytes. */
  readonly bytes: Uint8Array;
}

/** A unicast IPv4 address that one host can own. */
export interface GuestIpv4 {
  readonly [checked]: 'ip';
  readonly family: 4;
  readonly text: string;
  /** 4 bytes. */
  readonly bytes: Uint8Array;
}

/** A unicast IPv6 address that one host can own; link-local ones included, IPv4-mapped ones not. */
export interface GuestIpv6 {
  readonly [checked]: 'ip';
  readonly family: 6;
  /** The canonical form of RFC 5952. */
  readonly text: string;
  /** 16 bytes. */
  readonly bytes: Uint8Array;
}

export type GuestIp = GuestIpv4 | GuestIpv6;

/** What an operator gave with `--announce-ip`. Without a MAC it belongs to the first NIC. */
export interface ExplicitAddress {
  readonly mac?: GuestMac;
  readonly ip: GuestIp;
}

/** Reads "52:54:00:12:34:56" (dashes are taken too). Throws `AnnounceInputError`. */
export function parseMac(text: string): GuestMac {
  if (!/^[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5})$/i.test(text)) {
    throw new AnnounceInputError(
      `${quote(text)} is not a MAC address`,
      'Write six pairs of hexadecimal digits, like 52:54:00:12:34:56.',
    );
  }
  const bytes = Uint8Array.from(text.split(/[:-]/), (pair) => Number.parseInt(pair, 16));
  const wrong = bytes.every((byte) => byte === 0)
    ? 'is all zeros'
    : bytes.every((byte) => byte === 255)
      ? 'is the broadcast address'
      : (bytes[0]! & 1) === 1
        ? 'is a multicast address'
        : undefined;
  if (wrong !== undefined) {
    throw new AnnounceInputError(`The MAC address ${text} ${wrong}`, "Give the MAC of the guest's own NIC.");
  }
  return { text: formatMac(bytes), bytes } as GuestMac;
}

/** 6 bytes as "52:54:00:12:34:56". */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Reads "10.0.0.2", "fd00::2" or "52:54:00:12:34:56=10.0.0.2". Throws `AnnounceInputError`. */
export function parseAnnounceIp(text: string): ExplicitAddress {
  const equals = text.indexOf('=');
  if (equals < 0) return { ip: parseIp(text) };
  return { mac: parseMac(text.slice(0, equals)), ip: parseIp(text.slice(equals + 1)) };
}

/** Reads an IPv4 or IPv6 address without prefix length or zone. Throws `AnnounceInputError`. */
export function parseIp(text: string): GuestIp {
  const family = isIPv4(text) ? 4 : isIPv6(text) && !text.includes('%') ? 6 : undefined;
  if (family === undefined) {
    throw new AnnounceInputError(
      `${quote(text)} is not an IP address`,
      'Write an IPv4 or IPv6 address without prefix length or zone.',
    );
  }
  const bytes = family === 4 ? ipv4Bytes(text) : ipv6Bytes(text);
  const wrong = family === 4 ? ipv4Fault(bytes) : ipv6Fault(bytes);
  if (wrong !== undefined) {
    throw new AnnounceInputError(
      `The address ${text} is ${wrong}`,
      "Give a unicast address of the guest's own.",
    );
  }
  return { family, text: formatIp(bytes), bytes } as GuestIp;
}

/** 4 bytes as dotted decimals, 16 bytes in the canonical form of RFC 5952. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const words: number[] = [];
  for (let at = 0; at < 16; at += 2) words.push((bytes[at]! << 8) | bytes[at + 1]!);
  const zeros = longestZeroRun(words);
  const hex = (part: readonly number[]) => part.map((word) => word.toString(16)).join(':');
  if (zeros.length < 2) return hex(words);
  return `${hex(words.slice(0, zeros.start))}::${hex(words.slice(zeros.start + zeros.length))}`;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text);
}

function ipv4Bytes(text: string): Uint8Array {
  return Uint8Array.from(text.split('.'), Number);
}

/** `text` has passed `isIPv6`, so its groups and its one "::" are known to be in order. */
function ipv6Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [left = '', right] = text.split('::');
  bytes.set(ipv6Groups(left), 0);
  if (right !== undefined) {
    const tail = ipv6Groups(right);
    bytes.set(tail, 16 - tail.length);
  }
  return bytes;
}

function ipv6Groups(part: string): number[] {
  if (part === '') return [];
  return part.split(':').flatMap((group) => {
    if (group.includes('.')) return [...ipv4Bytes(group)];
    const word = Number.parseInt(group, 16);
    return [word >> 8, word & 0xff];
  });
}

function ipv4Fault(bytes: Uint8Array): string | undefined {
  const first = bytes[0]!;
  if (bytes.every((byte) => byte === 0)) return 'the unspecified address';
  if (bytes.every((byte) => byte === 255)) return 'the broadcast address';
  if (first === 0) return 'in 0.0.0.0/8, which no host owns';
  if (first === 127) return 'a loopback address';
  if (first >= 224 && first <= 239) return 'a multicast address';
  if (first >= 240) return 'in 240.0.0.0/4, which is reserved';
  return undefined;
}

function ipv6Fault(bytes: Uint8Array): string | undefined {
  if (bytes[0] === 0xff) return 'a multicast address';
  if (bytes.subarray(0, 15).every((byte) => byte === 0)) {
    if (bytes[15] === 0) return 'the unspecified address';
    if (bytes[15] === 1) return 'the loopback address';
  }
  if (bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff) {
    return 'an IPv4-mapped address (write it as IPv4)';
  }
  return undefined;
}

/** The first of the longest runs of zero words. */
function longestZeroRun(words: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < words.length; start++) {
    let length = 0;
    while (words[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  return best;
}
