import { type Millis, millis } from '@vmferry/engine/units';
import { z } from 'zod';

const versionSchema = z.looseObject({
  qemu: z.looseObject({ major: z.int(), minor: z.int(), micro: z.int() }),
  package: z.string().default(''),
});

const greetingSchema = z.looseObject({
  QMP: z.looseObject({ version: versionSchema, capabilities: z.array(z.unknown()).default([]) }),
});

const eventSchema = z.looseObject({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).default({}),
  timestamp: z.looseObject({ seconds: z.number(), microseconds: z.number() }),
});

const errorSchema = z.looseObject({
  error: z.looseObject({ class: z.string(), desc: z.string() }),
});

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** The distribution's own name for its build, often empty. */
  readonly package: string;
}

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** QEMU's own stamp, milliseconds since the epoch with microseconds in the fraction. */
  readonly atMs: Millis;
}

export interface Greeting {
  readonly version: QemuVersion;
  readonly capabilities: readonly unknown[];
}

export type QmpMessage =
  | { readonly type: 'event'; readonly event: QmpEvent }
  | { readonly type: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly type: 'error'; readonly id: unknown; readonly class: string; readonly desc: string };

/** Undefined if the line is no QMP greeting. */
export function parseGreeting(line: string): Greeting | undefined {
  const found = greetingSchema.safeParse(parseJson(line));
  if (!found.success) return undefined;
  const { version, capabilities } = found.data.QMP;
  const { major, minor, micro } = version.qemu;
  return { version: { major, minor, micro, package: version.package }, capabilities };
}

/** Undefined if the line is nothing that QMP has after its greeting. */
export function parseMessage(line: string): QmpMessage | undefined {
  const value = parseJson(line);
  if (typeof value !== 'object' || value === null) return undefined;
  if ('event' in value) {
    const found = eventSchema.safeParse(value);
    if (!found.success) return undefined;
    const { event: name, data, timestamp } = found.data;
    const atMs = millis(timestamp.seconds * 1000 + timestamp.microseconds / 1000);
    return { type: 'event', event: { name, data, atMs } };
  }
  const id = 'id' in value ? value.id : undefined;
  if ('return' in value) return { type: 'return', id, value: value.return };
  if (!('error' in value)) return undefined;
  const found = errorSchema.safeParse(value);
  if (!found.success) return undefined;
  return { type: 'error', id, class: found.data.error.class, desc: found.data.error.desc };
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
