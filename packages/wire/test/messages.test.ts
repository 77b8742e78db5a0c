import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import {
  decodeMessage,
  encodeMessage,
  isHandshake,
  type MessageType,
  messageTypes,
  type OutgoingMessage,
} from '../src/messages.ts';
import { MAX_PACKED_BYTES } from '../src/packed.ts';
import { wireErrorOf } from './support.ts';

const session = '3d0ad3c5-5fc5-4a3d-9f0a-0f7a3a8e7b11';
const limits = { maxFrameBytes: 1 << 20, windowBytes: 8 << 20 };
const reason = { code: 'E_GUEST_MISMATCH', message: 'another machine type', remedy: 'Use the same.' };

const samples: { readonly [T in MessageType]: OutgoingMessage<T> } = {
  hello: {
    type: 'hello',
    versions: [1, 1],
    features: ['lz4'],
    agent: '0.1.0',
    role: 'control',
    token: 's3cret',
    limits,
  },
  welcome: {
    type: 'welcome',
    version: 1,
    features: [],
    agent: '0.1.0',
    session,
    secret: new Uint8Array(32).fill(9),
    limits,
    wallClockMs: 1_763_715_840_123.5,
  },
  refuse: { type: 'refuse', code: 'E_VERSION', message: 'no', versions: [2, 3], remedy: 'Update.' },
  attach: {
    type: 'attach',
    session,
    secret: new Uint8Array(32).fill(9),
    stream: { role: 'data', index: 3 },
    received: 5_000_000_000,
  },
  attached: { type: 'attached', received: 0 },
  open: {
    type: 'open',
    guest: { kind: 'qemu', blocks: [{ name: 'pc.ram', bytes: 2 ** 40 }], nics: [], running: true, x: null },
    destGuest: 'sim:b',
    request: { maxDowntimeMs: 300 },
    plan: { postcopy: true },
    streams: 4,
  },
  accepted: {
    type: 'accepted',
    hypervisorVersion: '7.2.22',
    nics: [{ mac: '52:54:00:12:34:56' }],
    notes: ['n'],
  },
  rejected: { type: 'rejected', reasons: [reason] },
  start: { type: 'start' },
  started: { type: 'started' },
  clock: { type: 'clock', t0: 0.25 },
  'clock-reply': { type: 'clock-reply', t0: 0.25, t1: -3, t2: 1e12 },
  layout: { type: 'layout', blocks: [{ name: 'pc.ram', bytes: 2 ** 41, hostPageBytes: 4096 }] },
  barrier: { type: 'barrier', epoch: 1, upTo: [7, 0, 9], bytes: 4096 },
  round: { type: 'round', round: 3 },
  'state-complete': { type: 'state-complete', upTo: [1], pagesFollow: true },
  end: { type: 'end', upTo: [] },
  sealed: {
    type: 'sealed',
    paused: false,
    announce: { ips: ['10.0.0.1', 'fe80::1', '52:54:00:12:34:56=10.0.0.2'], nics: [] },
  },
  ready: { type: 'ready', timings: { loadMs: 12.5 } },
  commit: { type: 'commit' },
  running: { type: 'running', atMs: 1_763_715_840_123 },
  fault: { type: 'fault', ranges: [{ block: 0, first: 0xffff_ffff, count: 1 }] },
  reply: { type: 'reply', bytes: Uint8Array.of(0, 1, 255) },
  complete: {
    type: 'complete',
    atMs: 1_763_715_841_123,
    faults: { count: 2, p50Ms: 0.5, p99Ms: 2, maxMs: 2.5 },
    announce: { frames: 3, interfaces: ['tap0'] },
    pagesApplied: 131_072,
  },
  probe: { type: 'probe', bytes: new Uint8Array(1000).fill(3), last: true },
  probed: { type: 'probed', bytes: 1000 },
  goodbye: { type: 'goodbye' },
  discard: { type: 'discard', reason: 'cancelled' },
  discarded: { type: 'discarded' },
  failure: {
    type: 'failure',
    error: { ...reason, side: 'dest', phase: 'precopy', guestRunsOn: 'source' },
  },
  ping: { type: 'ping' },
  pong: { type: 'pong' },
};

const plain = new Packr({ useRecords: false });
/** As a peer would send it that does not check anything. */
const unchecked = (value: unknown): Uint8Array => plain.pack(value);

const sampleMessage = fc.constantFrom(...Object.values<OutgoingMessage>(samples));

describe('a control message', () => {
  test.each(messageTypes)('"%s" comes out of its encoding as it went in', (type) => {
    const decoded = decodeMessage(encodeMessage(samples[type]));
    const expected = Object.fromEntries(
      Object.entries(samples[type]).map(([key, value]) => [
        key,
        value instanceof Uint8Array ? Buffer.from(value) : value,
      ]),
    );
    expect(decoded).toEqual(expected);
  });

  test('does not share memory with what it was decoded from', () => {
    const packed = Buffer.from(encodeMessage(samples.reply));
    const decoded = decodeMessage(packed);
    packed.fill(0);
    expect(decoded).toMatchObject({ type: 'reply', bytes: Buffer.from([0, 1, 255]) });
  });

  test('loses keys that are not known, and keeps the rest', () => {
    const packed = unchecked({ type: 'barrier', epoch: 1, upTo: [7], bytes: 0, colour: 'red' });
    expect(decodeMessage(packed)).toEqual({ type: 'barrier', epoch: 1, upTo: [7], bytes: 0 });
  });

  test('of an unknown type is refused by its name', () => {
    expect(wireErrorOf(() => decodeMessage(unchecked({ type: 'teleport' })))).toMatchObject({
      code: 'E_MESSAGE',
    });
    expect(wireErrorOf(() => decodeMessage(unchecked({ type: 'teleport' }))).message).toContain('"teleport"');
    for (const value of [
      { type: 'toString' },
      { type: '__proto__' },
      { type: 7 },
      {},
      [],
      null,
      'hello',
      3,
    ]) {
      expect(wireErrorOf(() => decodeMessage(unchecked(value))).code).toBe('E_MESSAGE');
    }
  });

  test('leaves out what is undefined, however deep', () => {
    const message = {
      ...samples.open,
      guest: { kind: 'sim', hostInterface: undefined, nics: [{ a: undefined }] },
    };
    expect(decodeMessage(encodeMessage(message))).toMatchObject({ guest: { kind: 'sim', nics: [{}] } });
    const hello = { ...samples.hello, token: undefined };
    expect(decodeMessage(encodeMessage(hello))).not.toHaveProperty('token');
  });

  test.each<[string, unknown]>([
    ['more streams than there may be', { ...samples.barrier, upTo: new Array(65).fill(0) }],
    ['a sequence that is no whole number', { ...samples.barrier, upTo: [0.5] }],
    ['a sequence above 2^53', { ...samples.barrier, upTo: [2 ** 53] }],
    ['a negative size', { ...samples.barrier, bytes: -1 }],
    ['nothing about whether pages follow', { type: 'state-complete', upTo: [1] }],
    ['no fault ranges', { ...samples.fault, ranges: [] }],
    [
      'too many fault ranges',
      { ...samples.fault, ranges: new Array(257).fill({ block: 0, first: 0, count: 1 }) },
    ],
    ['an empty fault range', { ...samples.fault, ranges: [{ block: 0, first: 0, count: 0 }] }],
    ['a secret of another length', { ...samples.attach, secret: new Uint8Array(31) }],
    ['a secret that is no bytes', { ...samples.attach, secret: 'x'.repeat(32) }],
    ['a session that is no UUID', { ...samples.attach, session: '../../etc' }],
    ['a version range upside down', { ...samples.hello, versions: [3, 1] }],
    ['a version range of three', { ...samples.hello, versions: [1, 2, 3] }],
    ['a very long token', { ...samples.hello, token: 'x'.repeat(4097) }],
    ['too many features', { ...samples.hello, features: new Array(65).fill('f') }],
    ['a clock that is not a number', { ...samples.clock, t0: Number.NaN }],
    ['an announced address that is none', { ...samples.sealed, announce: { ips: ['10.0.0'], nics: [] } }],
    [
      'an announced address that is a host name',
      { ...samples.sealed, announce: { ips: ['a.example'], nics: [] } },
    ],
    [
      'an announced address behind half a MAC',
      { ...samples.sealed, announce: { ips: ['52:54=10.0.0.2'], nics: [] } },
    ],
    ['a guest that is a list', { ...samples.open, guest: [] }],
    [
      'a block name over 255',
      { type: 'layout', blocks: [{ name: 'x'.repeat(256), bytes: 1, hostPageBytes: 4096 }] },
    ],
    ['too large a reply', { type: 'reply', bytes: new Uint8Array(512 * 1024 + 1) }],
  ])('with %s is refused, by the receiver and by the sender', (_what, message) => {
    expect(wireErrorOf(() => decodeMessage(unchecked(message))).code).toBe('E_MESSAGE');
    expect(wireErrorOf(() => encodeMessage(message as OutgoingMessage)).code).toBe('E_MESSAGE');
  });

  test('may carry a description that is deep or large only within bounds', () => {
    let deep: object = {};
    for (let i = 0; i < 20; i++) deep = { deep };
    const many = { list: new Array(30_000).fill(0) };
    const long = { text: 'x'.repeat(70_000) };
    for (const guest of [deep, many, long]) {
      expect(wireErrorOf(() => decodeMessage(unchecked({ ...samples.open, guest }))).message).toContain(
        'bounds',
      );
    }
  });

  test('cannot reach the prototype of what it is decoded into', () => {
    // {"type": "open", …, "guest": {"__proto__": {"polluted": 1}}}
    const honest = Buffer.from(encodeMessage({ ...samples.open, guest: { xxproto__: { polluted: 1 } } }));
    const packed = Buffer.from(honest.toString('latin1').replace('xxproto__', '__proto__'), 'latin1');
    const decoded = decodeMessage(packed);
    expect(decoded).toMatchObject({ type: 'open' });
    expect((decoded as { guest: { polluted?: number } }).guest.polluted).toBeUndefined();
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });

  test('that claims more than it has is refused before anything is allocated', () => {
    const claims = [
      [0xdd, 0xff, 0xff, 0xff, 0xff],
      [0xdf, 0xff, 0xff, 0xff, 0xff],
      [0xdb, 0xff, 0xff, 0xff, 0xff],
      [0xc6, 0xff, 0xff, 0xff, 0xff],
      [0xdc, 0xff, 0xff],
      [0x93, 0x01],
    ];
    for (const claim of claims) {
      expect(wireErrorOf(() => decodeMessage(Uint8Array.from(claim))).message).toContain('promised');
    }
    const nested = new Uint8Array(4096).fill(0x91);
    expect(wireErrorOf(() => decodeMessage(nested)).message).toContain('deeper');
  });

  test('with an extension type, a key that is no string or something behind it is refused', () => {
    for (const bytes of [[0xd4, 0x72, 0x40], [0xc1], [0xc7, 0, 1], [0x81, 0x01, 0x01], [0xc0, 0xc0], []]) {
      expect(wireErrorOf(() => decodeMessage(Uint8Array.from(bytes))).code).toBe('E_MESSAGE');
    }
  });

  test('that is too large is refused', () => {
    expect(wireErrorOf(() => decodeMessage(new Uint8Array(MAX_PACKED_BYTES + 1))).code).toBe('E_LIMIT');
    const text = 'x'.repeat(60_000);
    const guest = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, text]));
    expect(wireErrorOf(() => encodeMessage({ ...samples.open, guest })).code).toBe('E_LIMIT');
  });

  test('never crashes its reader, however it was changed on the way', () => {
    const edits = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(sampleMessage, edits, fc.nat(), (message, changes, cut) => {
        const packed = Uint8Array.from(encodeMessage(message));
        for (const [at, value] of changes) packed[at % packed.length] = value;
        const part = packed.subarray(0, cut % 3 === 0 ? cut % packed.length : packed.length);
        try {
          decodeMessage(part);
        } catch {
          expect(['E_MESSAGE', 'E_LIMIT']).toContain(wireErrorOf(() => decodeMessage(part)).code);
        }
      }),
      { numRuns: 3000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(wireErrorOf(() => decodeMessage(bytes)).code).toBe('E_MESSAGE');
      }),
      { numRuns: 2000 },
    );
  });

  test('of the handshake is told apart from the numbered ones', () => {
    expect(messageTypes.filter(isHandshake)).toEqual(['hello', 'welcome', 'refuse', 'attach', 'attached']);
  });
});
