/** What two agents agree on before they trust each other. Pure: randomness is handed in. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { SECRET_BYTES } from './messages.ts';

export type VersionRange = readonly [min: number, max: number];

/** The lowest and the highest protocol version that this build speaks. */
export const PROTOCOL_VERSIONS: VersionRange = [1, 1];

export interface Offer {
  readonly versions: VersionRange;
  /** What this side can do. */
  readonly features: readonly string[];
  /** What this side cannot do without. */
  readonly required?: readonly string[];
}

export interface Refusal {
  readonly code: 'E_VERSION';
  readonly message: string;
  readonly versions: VersionRange;
  readonly remedy: string;
}

export type Negotiation =
  | { readonly ok: true; readonly version: number; readonly features: readonly string[] }
  | { readonly ok: false; readonly refusal: Refusal };

const range = ([min, max]: VersionRange): string => (min === max ? `${min}` : `${min} to ${max}`);
const list = (features: readonly string[]): string => (features.length === 0 ? 'none' : features.join(', '));

/** The highest version of both and the features of both, or a refusal that names what each side has. */
export function negotiate(ours: Offer, theirs: Offer): Negotiation {
  const version = Math.min(ours.versions[1], theirs.versions[1]);
  if (version < Math.max(ours.versions[0], theirs.versions[0])) {
    const older = ours.versions[1] < theirs.versions[1] ? 'this agent' : 'the other agent';
    return refused(
      ours,
      `this agent speaks protocol versions ${range(ours.versions)}, the other ${range(theirs.versions)}`,
      `Update ${older}, which is the older one.`,
    );
  }
  const missing =
    missingFeatures('the other agent', ours.required, theirs) ??
    missingFeatures('this agent', theirs.required, ours);
  if (missing !== undefined) {
    return refused(
      ours,
      `${missing} (this agent: ${list(ours.features)}; the other: ${list(theirs.features)})`,
      'Update the agent that lacks it, or turn the feature off.',
    );
  }
  const theirFeatures = new Set(theirs.features);
  return { ok: true, version, features: ours.features.filter((feature) => theirFeatures.has(feature)) };
}

function refused(ours: Offer, message: string, remedy: string): Negotiation {
  return { ok: false, refusal: { code: 'E_VERSION', message, versions: ours.versions, remedy } };
}

function missingFeatures(who: string, required: readonly string[] = [], from: Offer): string | undefined {
  const missing = required.filter((feature) => !from.features.includes(feature));
  return missing.length === 0 ? undefined : `${who} lacks ${list(missing)}, which is needed`;
}

/** Takes the same time wherever the two differ, and whatever their lengths. */
export function sameSecret(ours: Uint8Array, theirs: Uint8Array): boolean {
  const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
  return timingSafeEqual(digest(ours), digest(theirs));
}

/** Whether a peer's token is right. Without an expected one every peer is let in. */
export function tokenAccepted(expected: string | undefined, given: string | undefined): boolean {
  if (expected === undefined) return true;
  return sameSecret(Buffer.from(expected), Buffer.from(given ?? ''));
}

export interface SessionIdentity {
  /** A UUID, version 4. */
  readonly session: string;
  /** Whoever has it may attach streams to the session. */
  readonly secret: Uint8Array;
}

/** @param random gives that many random bytes, fit for secrets (`crypto.randomBytes`) */
export function newSession(random: (bytes: number) => Uint8Array): SessionIdentity {
  const id = Buffer.from(random(16));
  id[6] = (id[6]! & 0x0f) | 0x40;
  id[8] = (id[8]! & 0x3f) | 0x80;
  const hex = id.toString('hex');
  const session = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
  return { session, secret: random(SECRET_BYTES) };
}
