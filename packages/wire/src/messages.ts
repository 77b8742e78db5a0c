/**
 * Control messages of a migration session, source agent (S) to destination agent (D) and back.
 *
 *     S hello ▶ D welcome | refuse            S attach ▶ D attached | refuse   (every further stream)
 *     S open ▶ D accepted | rejected          S start ▶ D started
 *     S clock ▶ D clock-reply                 S probe* ▶ D probed              S layout, barrier, round
 *     D fault, reply
 *     S state-complete, end, sealed ▶ D ready ▶ S commit ▶ D running ▶ D complete ▶ S goodbye
 *     S discard ▶ D discarded                 either: failure, ping, pong
 *
 * Keys that are not known are dropped, so that a later version may add some. A type that is not known is
 * an error. Times are in milliseconds, sizes in bytes.
 */
import { z } from 'zod';
import { WireError } from './errors.ts';
import { jsonRecord, jsonValue } from './json.ts';
import { pack, unpack } from './packed.ts';

/** The most streams, of any role, that a session has. */
export const MAX_STREAMS = 64;
export const MAX_FAULT_RANGES = 256;
export const SECRET_BYTES = 32;
/** The most that one `probe` carries. */
export const MAX_PROBE_BYTES = 512 * 1024;

/**
 * Connections of the hypervisors' own that are carried verbatim, each on a stream of its own: libvirt's calls, disks,
 * and the guest's stream where nothing of it has to be understood. They need the feature `tunnel`.
 */
export const tunnelRoles = ['rpc', 'nbd', 'ram'] as const;
export type TunnelRole = (typeof tunnelRoles)[number];

const code = z.string().min(1).max(64);
/** Of what a person is told, in characters; what is longer has to be cut. */
export const MAX_SENTENCE = 4096;
const sentence = z.string().max(MAX_SENTENCE);
const name = z.string().max(255);
const u32 = z.int().min(0).max(0xffff_ffff);
/** A whole number below 2^53. */
const count = z.int().min(0);
const ms = z.number();
const nonNegative = z.number().min(0);
const features = z.array(z.string().min(1).max(64)).max(64);
const version = z.int().min(1).max(65_535);
const versions = z
  .tuple([version, version])
  .refine(([min, max]) => min <= max, 'the lowest version is above the highest');
const sequences = z.array(count).max(MAX_STREAMS);
const nics = z.array(jsonValue).max(64);

function bytes(max: number, exact = false) {
  return z.custom<Uint8Array>(
    (value) => value instanceof Uint8Array && (exact ? value.length === max : value.length <= max),
    exact ? `must be ${max} bytes` : `must be at most ${max} bytes`,
  );
}

const secret = bytes(SECRET_BYTES, true);

const ip = z.union([z.ipv4(), z.ipv6()]);
/** "10.0.0.2", "fd00::2", or for one of several NICs "52:54:00:12:34:56=10.0.0.2". */
const announceIp = z
  .string()
  .max(64)
  .refine(
    (text) => ip.safeParse(text.replace(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}=/i, '')).success,
    'must be IP or MAC=IP',
  );

const linkLimits = z.object({
  maxFrameBytes: z.int().min(4096).max(0x7fff_ffff),
  /** What this side is willing to hold of one stream before it has consumed it. */
  windowBytes: z.int().min(4096).max(0x7fff_ffff),
});
export type LinkLimits = z.infer<typeof linkLimits>;

const reason = z.object({ code, message: sentence, remedy: sentence });

const pageRange = z.object({ block: u32, first: u32, count: u32.min(1) });

const type = <T extends string>(tag: T) => z.literal(tag);

const schemas = {
  hello: z.object({
    type: type('hello'),
    versions,
    features,
    agent: name,
    role: z.literal('control'),
    token: z.string().max(4096).optional(),
    limits: linkLimits,
  }),
  welcome: z.object({
    type: type('welcome'),
    version,
    features,
    agent: name,
    session: z.uuid(),
    secret,
    limits: linkLimits,
    wallClockMs: ms,
  }),
  refuse: z.object({
    type: type('refuse'),
    code,
    message: sentence,
    versions: versions.optional(),
    remedy: sentence,
  }),
  attach: z.object({
    type: type('attach'),
    session: z.uuid(),
    secret,
    /** `control` is for taking a session up again; `rpc`, `nbd` and `ram` are tunnels (`tunnel.ts`). */
    stream: z.object({
      role: z.enum(['control', 'data', 'express', ...tunnelRoles]),
      index: z
        .int()
        .min(0)
        .max(MAX_STREAMS - 1),
    }),
    /** The last sequence that was received in order; 0 for none. */
    received: count,
  }),
  attached: z.object({ type: type('attached'), received: count }),
  open: z.object({
    type: type('open'),
    /** The guest's description; what it means is not the wire's to know. */
    guest: jsonRecord,
    destGuest: z.string().max(4096),
    request: jsonRecord,
    plan: z.object({ postcopy: z.boolean() }),
    streams: z
      .int()
      .min(1)
      .max(MAX_STREAMS - 2),
  }),
  accepted: z.object({
    type: type('accepted'),
    hypervisorVersion: name,
    nics,
    notes: z.array(sentence).max(64),
  }),
  rejected: z.object({
    type: type('rejected'),
    reasons: z.array(reason).min(1).max(64),
    /** What should be known besides. */
    notes: z.array(sentence).max(64).optional(),
  }),
  start: z.object({ type: type('start') }),
  started: z.object({ type: type('started') }),
  clock: z.object({ type: type('clock'), t0: ms }),
  'clock-reply': z.object({ type: type('clock-reply'), t0: ms, t1: ms, t2: ms }),
  /** How much the link carries, before a guest is named: bytes that mean nothing; the last is answered. */
  probe: z.object({ type: type('probe'), bytes: bytes(MAX_PROBE_BYTES), last: z.boolean() }),
  probed: z.object({ type: type('probed'), bytes: count }),
  layout: z.object({
    type: type('layout'),
    blocks: z
      .array(z.object({ name, bytes: count, hostPageBytes: z.int().min(4096) }))
      .min(1)
      .max(4096),
  }),
  /** Precedes the opaque frames of an epoch. `upTo`: last page frame of each data stream, express last. */
  barrier: z.object({ type: type('barrier'), epoch: u32, upTo: sequences, bytes: count }),
  round: z.object({ type: type('round'), round: u32 }),
  /** `pagesFollow`: post-copy; else the stream's end follows. */
  'state-complete': z.object({ type: type('state-complete'), upTo: sequences, pagesFollow: z.boolean() }),
  end: z.object({ type: type('end'), upTo: sequences }),
  sealed: z.object({
    type: type('sealed'),
    paused: z.boolean(),
    announce: z.object({ ips: z.array(announceIp).max(64), nics }),
  }),
  ready: z.object({
    type: type('ready'),
    timings: z
      .record(z.string().max(64), nonNegative)
      .refine((timings) => Object.keys(timings).length <= 64, 'at most 64 timings')
      .optional(),
  }),
  commit: z.object({ type: type('commit') }),
  running: z.object({
    type: type('running'),
    atMs: ms,
    /** The guest will be examined before `complete`, however long that takes. */
    examines: z.boolean().optional(),
  }),
  fault: z.object({ type: type('fault'), ranges: z.array(pageRange).min(1).max(MAX_FAULT_RANGES) }),
  reply: z.object({ type: type('reply'), bytes: bytes(512 * 1024) }),
  complete: z.object({
    type: type('complete'),
    atMs: ms,
    faults: z.object({ count, p50Ms: nonNegative, p99Ms: nonNegative, maxMs: nonNegative }),
    /** What was sent until now; `underWay`: further rounds follow. */
    announce: z.object({
      frames: count,
      interfaces: z.array(name).max(64),
      underWay: z.boolean().optional(),
    }),
    pagesApplied: count,
    /** What was found when the guest was examined, where that can be done, and what else should be known. */
    notes: z.array(sentence).max(16).optional(),
    /** The guest runs, and is not what left the source. */
    damage: z.object({ code, message: sentence, remedy: sentence }).optional(),
  }),
  goodbye: z.object({ type: type('goodbye') }),
  discard: z.object({ type: type('discard'), reason: sentence }),
  discarded: z.object({ type: type('discarded'), notes: z.array(sentence).max(16).optional() }),
  failure: z.object({
    type: type('failure'),
    error: z.object({
      code,
      message: sentence,
      side: z.enum(['source', 'dest', 'cli']),
      phase: z.string().max(64),
      guestRunsOn: z.enum(['source', 'dest', 'neither', 'unknown']),
      remedy: sentence,
    }),
  }),
  ping: z.object({ type: type('ping') }),
  pong: z.object({ type: type('pong') }),
} as const;

export type MessageType = keyof typeof schemas;

type Frozen<T> = unknown extends T
  ? T
  : T extends Uint8Array | string | number | boolean | undefined
    ? T
    : { readonly [K in keyof T]: Frozen<T[K]> };

/** A message as it was received; of one type: `ControlMessage<'hello'>`. */
export type ControlMessage<T extends MessageType = MessageType> = {
  [K in T]: z.output<(typeof schemas)[K]>;
}[T];

/** A message to be sent. `undefined` is as good as left out. */
export type OutgoingMessage<T extends MessageType = MessageType> = {
  [K in T]: Frozen<z.input<(typeof schemas)[K]>>;
}[T];

/** These begin a connection: their frames have no number, are not acknowledged and are never sent again. */
const handshakeTypes: ReadonlySet<MessageType> = new Set<MessageType>([
  'hello',
  'welcome',
  'refuse',
  'attach',
  'attached',
]);

export const isHandshake = (messageType: MessageType): boolean => handshakeTypes.has(messageType);

export const messageTypes = Object.keys(schemas) as readonly MessageType[];

function isMessageType(value: unknown): value is MessageType {
  return typeof value === 'string' && Object.hasOwn(schemas, value);
}

function check(value: unknown): ControlMessage {
  const tag = typeof value === 'object' && value !== null ? (value as { type?: unknown }).type : undefined;
  if (!isMessageType(tag)) {
    const told = typeof tag === 'string' ? `of type "${tag.slice(0, 64)}" is not known here` : 'has no type';
    throw new WireError('E_MESSAGE', `a control message ${told}`);
  }
  const result = schemas[tag].safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    const where = issue?.path.join('.') ?? '';
    throw new WireError('E_MESSAGE', `a "${tag}" message is not valid: ${where}: ${issue?.message ?? ''}`);
  }
  return result.data;
}

/** Throws `WireError`: `E_MESSAGE` when the message is not what its type says, `E_LIMIT` when too large. */
export function encodeMessage(message: OutgoingMessage): Uint8Array {
  const checked = check(message);
  return pack(Object.fromEntries(Object.entries(checked).filter(([, value]) => value !== undefined)));
}

/** Throws `WireError`: `E_MESSAGE` or `E_LIMIT`. */
export function decodeMessage(packed: Uint8Array): ControlMessage {
  return check(unpack(packed));
}
