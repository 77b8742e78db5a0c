/**
 * A client of the agent inside the guest (qemu-ga), for the one thing that vmferry asks it: the guest's
 * addresses.
 *
 *     connect ──▶ sync (0xFF, guest-sync-delimited) ──▶ guest-network-get-interfaces ──▶ end
 *
 * QEMU keeps the channel whether an agent listens or not, and what an earlier client asked may still come in.
 * So everything up to the 0xFF that announces the answer to the sync is thrown away.
 */
import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import { GuestError } from '@vmferry/engine/errors';
import type { Nic } from '@vmferry/engine/guest';
import { z } from 'zod';
import { QmpError } from '../qmp/errors.ts';
import { LineSplitter } from '../qmp/lines.ts';
import { openSocket } from '../qmp/socket.ts';

const MAX_ANSWER_BYTES = 1024 * 1024;
const MAX_ADDRESSES = 256;

/** 0xFF is never part of UTF-8 and is decoded to this. */
const SENTINEL = '\uFFFD';

const answerSchema = z.looseObject({
  return: z.unknown().optional(),
  error: z.looseObject({ desc: z.string() }).optional(),
});

const interfacesSchema = z.array(
  z.looseObject({
    name: z.string(),
    'hardware-address': z.string().optional(),
    'ip-addresses': z
      .array(z.looseObject({ 'ip-address': z.union([z.ipv4(), z.ipv6()]) }))
      .max(MAX_ADDRESSES)
      .default([]),
  }),
);

/** MAC address in lower case → the addresses that the guest has on it. */
export type GuestAddresses = ReadonlyMap<string, readonly string[]>;

/**
 * Asks the agent behind the UNIX socket at `path`. The guest is not trusted: its answer is bounded and checked.
 *
 * @throws GuestError E_GUEST_UNREACHABLE, E_TIMEOUT, E_LIMIT, E_PROTOCOL, E_UNSUPPORTED
 */
export async function readGuestAddresses(
  path: string,
  { timeoutMs = 2000 }: { readonly timeoutMs?: number } = {},
): Promise<GuestAddresses> {
  const socket = await connect(path);
  // Ends whatever is being waited for.
  const timer = setTimeout(() => socket.destroy(silent(path, timeoutMs)), timeoutMs);
  try {
    const lines = readLines(socket, path);
    await synchronize(socket, lines, path);
    socket.write(`${JSON.stringify({ execute: 'guest-network-get-interfaces' })}\n`);
    return collect(accept(await next(lines, path), path), path);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/** The devices with the addresses that the guest has on each of them added. */
export function withAddresses(nics: readonly Nic[], found: GuestAddresses): Nic[] {
  return nics.map((nic) => ({
    ...nic,
    addresses: [...new Set([...nic.addresses, ...(found.get(nic.mac.toLowerCase()) ?? [])])],
  }));
}

async function connect(path: string): Promise<Socket> {
  try {
    return await openSocket(path);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    const text = `the guest agent's socket cannot be opened: ${error.message}`;
    throw new GuestError('E_GUEST_UNREACHABLE', text, 'Check the path that was given for the guest agent.', {
      cause: error,
    });
  }
}

async function* readLines(socket: Socket, path: string): AsyncGenerator<string> {
  const splitter = new LineSplitter(MAX_ANSWER_BYTES);
  try {
    for await (const chunk of socket) yield* splitter.push(chunk as Buffer);
  } catch (error) {
    if (error instanceof GuestError) throw error;
    const options = { cause: error };
    if (error instanceof RangeError) {
      const text = `the guest agent behind ${path} answered with more than ${MAX_ANSWER_BYTES} bytes`;
      throw new GuestError('E_LIMIT', text, 'Name the addresses with --announce-ip.', options);
    }
    throw new GuestError(
      'E_GUEST_UNREACHABLE',
      `the guest agent's socket ${path} broke`,
      'Try again.',
      options,
    );
  }
}

async function next(lines: AsyncGenerator<string>, path: string): Promise<string> {
  const { value, done } = await lines.next();
  if (!done) return value;
  const text = `the guest agent's socket ${path} was closed before it answered`;
  throw new GuestError(
    'E_GUEST_UNREACHABLE',
    text,
    'Check that the guest runs and no other client holds the socket.',
  );
}

async function synchronize(socket: Socket, lines: AsyncGenerator<string>, path: string): Promise<void> {
  const id = randomInt(1, 2 ** 47);
  // The byte also makes the agent forget half a command of an earlier client.
  socket.write(Buffer.of(0xff));
  socket.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } })}\n`);
  for (;;) {
    const line = await next(lines, path);
    const from = line.lastIndexOf(SENTINEL);
    if (from === -1) continue;
    const answer = answerSchema.safeParse(parseJson(line.slice(from + 1)));
    if (answer.data?.return === id) return;
  }
}

function accept(line: string, path: string): unknown {
  const answer = answerSchema.safeParse(parseJson(line));
  const { return: value, error } = answer.data ?? {};
  if (error) {
    throw new GuestError(
      'E_UNSUPPORTED',
      `the guest agent behind ${path} refuses to tell its addresses: ${error.desc}`,
      'Allow guest-network-get-interfaces in the guest, or name the addresses with --announce-ip.',
    );
  }
  if (value === undefined) throw malformed(path, 'there is no result in it', answer.error);
  return value;
}

function collect(value: unknown, path: string): GuestAddresses {
  const interfaces = interfacesSchema.safeParse(value);
  if (!interfaces.success) throw malformed(path, z.prettifyError(interfaces.error), interfaces.error);
  const found = new Map<string, string[]>();
  for (const entry of interfaces.data) {
    const mac = entry['hardware-address']?.toLowerCase();
    // Loopback has an address of zeros, tunnels have none.
    if (mac === undefined || mac === '00:00:00:00:00:00') continue;
    const addresses = entry['ip-addresses'].map((address) => address['ip-address']);
    found.set(mac, [...(found.get(mac) ?? []), ...addresses]);
  }
  return found;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function silent(path: string, timeoutMs: number): GuestError {
  return new GuestError(
    'E_TIMEOUT',
    `the guest agent behind ${path} did not answer within ${timeoutMs} ms`,
    'Start qemu-guest-agent in the guest, or name the addresses with --announce-ip.',
  );
}

function malformed(path: string, why: string, cause: unknown): GuestError {
  const text = `the guest agent behind ${path} answered with what vmferry cannot read: ${why}`;
  return new GuestError('E_PROTOCOL', text, 'Name the addresses with --announce-ip.', { cause });
}
