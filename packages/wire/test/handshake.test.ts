import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  negotiate,
  newSession,
  type Offer,
  PROTOCOL_VERSIONS,
  sameSecret,
  tokenAccepted,
} from '../src/handshake.ts';
import { decodeMessage, encodeMessage } from '../src/messages.ts';

const versions = fc
  .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }))
  .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
const features = fc.uniqueArray(fc.constantFrom('lz4', 'resume', 'delta', 'tls'));
const offer: fc.Arbitrary<Offer> = fc.record({ versions, features });

describe('negotiation', () => {
  test('gives the highest version that both speak, whichever side asks', () => {
    fc.assert(
      fc.property(offer, offer, (ours, theirs) => {
        const here = negotiate(ours, theirs);
        const there = negotiate(theirs, ours);
        expect(here.ok).toBe(there.ok);
        const common = [1, 2, 3, 4, 5, 6, 7, 8, 9].filter((version) =>
          [ours, theirs].every(({ versions: [min, max] }) => min <= version && version <= max),
        );
        expect(here.ok).toBe(common.length > 0);
        if (here.ok && there.ok) {
          expect(here.version).toBe(common.at(-1));
          expect(there.version).toBe(here.version);
          expect(new Set(here.features)).toEqual(new Set(there.features));
          for (const feature of here.features) expect(theirs.features).toContain(feature);
        }
      }),
    );
  });

  test('refuses with a message that names both ranges and says which side to update', () => {
    const result = negotiate({ versions: [1, 2], features: [] }, { versions: [4, 6], features: [] });
    expect(result).toMatchObject({
      ok: false,
      refusal: {
        code: 'E_VERSION',
        message: 'this agent speaks protocol versions 1 to 2, the other 4 to 6',
        versions: [1, 2],
        remedy: 'Update this agent, which is the older one.',
      },
    });
    if (!result.ok) expect(decodeMessage(encodeMessage({ type: 'refuse', ...result.refusal }))).toBeDefined();
  });

  test('refuses when one side cannot do what the other cannot do without', () => {
    const needy: Offer = { versions: [1, 1], features: ['lz4', 'tls'], required: ['tls'] };
    const other: Offer = { versions: [1, 1], features: ['lz4'] };
    const message = 'lacks tls, which is needed (this agent: ';
    expect(negotiate(needy, other)).toMatchObject({ ok: false });
    expect(negotiate(other, needy)).toMatchObject({ ok: false });
    expect(JSON.stringify(negotiate(needy, other))).toContain(message);
    expect(negotiate(needy, { ...other, features: ['tls'] })).toMatchObject({ ok: true, features: ['tls'] });
  });

  test('of a build with itself succeeds', () => {
    const build: Offer = { versions: PROTOCOL_VERSIONS, features: [] };
    expect(negotiate(build, build)).toMatchObject({ ok: true, version: PROTOCOL_VERSIONS[1] });
  });
});

describe('a secret', () => {
  test('matches itself and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 40 }), (a, b) => {
        expect(sameSecret(a, Uint8Array.from(a))).toBe(true);
        expect(sameSecret(a, b)).toBe(Buffer.compare(a, b) === 0);
      }),
    );
  });

  test('as a token lets everybody in when none is expected, and only its owners otherwise', () => {
    expect(tokenAccepted(undefined, undefined)).toBe(true);
    expect(tokenAccepted(undefined, 'any')).toBe(true);
    expect(tokenAccepted('right', 'right')).toBe(true);
    expect(tokenAccepted('right', 'wrong')).toBe(false);
    expect(tokenAccepted('right', undefined)).toBe(false);
    expect(tokenAccepted('right', '')).toBe(false);
  });
});

describe('a session', () => {
  test('has a valid UUID and a secret of its own, from the randomness that is given', () => {
    const [one, two] = [newSession(randomBytes), newSession(randomBytes)];
    expect(one.session).not.toBe(two.session);
    expect(sameSecret(one.secret, two.secret)).toBe(false);
    const attach = { type: 'attach', ...one, stream: { role: 'data', index: 0 }, received: 0 } as const;
    expect(decodeMessage(encodeMessage(attach))).toMatchObject({ session: one.session });
    const zeros = (bytes: number) => new Uint8Array(bytes);
    expect(newSession(zeros).session).toBe('00000000-0000-4000-8000-000000000000');
  });
});
