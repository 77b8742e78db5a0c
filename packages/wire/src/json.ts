/** JSON that came from elsewhere, within bounds. */
import { z } from 'zod';

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };
export type JsonRecord = { [key: string]: JsonValue };

const MAX_DEPTH = 12;
const MAX_VALUES = 20_000;
const MAX_STRING = 65_536;
const MAX_KEY = 256;

class OutOfBounds extends Error {}

/** A copy that holds plain values only; keys whose value is `undefined` are left out. */
function copy(value: unknown, depth: number, budget: { left: number }): JsonValue {
  if (--budget.left < 0) throw new OutOfBounds(`more than ${MAX_VALUES} values`);
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'number':
      if (!Number.isFinite(value)) throw new OutOfBounds(`${value} is no JSON number`);
      return value;
    case 'string':
      if (value.length > MAX_STRING) throw new OutOfBounds(`a string of ${value.length} characters`);
      return value;
    case 'object': {
      if (value === null) return null;
      if (depth === 0) throw new OutOfBounds(`nested deeper than ${MAX_DEPTH}`);
      if (Array.isArray(value)) return value.map((entry) => copy(entry, depth - 1, budget));
      if (ArrayBuffer.isView(value)) throw new OutOfBounds('bytes');
      const result: JsonRecord = {};
      for (const [key, entry] of Object.entries(value)) {
        if (entry === undefined || key === '__proto__') continue;
        if (key.length > MAX_KEY) throw new OutOfBounds(`a key of ${key.length} characters`);
        result[key] = copy(entry, depth - 1, budget);
      }
      return result;
    }
    default:
      throw new OutOfBounds(`a ${typeof value}`);
  }
}

function bounded(value: unknown, context: z.RefinementCtx): JsonValue {
  try {
    return copy(value, MAX_DEPTH, { left: MAX_VALUES });
  } catch (error) {
    if (!(error instanceof OutOfBounds)) throw error;
    context.addIssue({ code: 'custom', message: `not within the bounds of JSON here: ${error.message}` });
    return z.NEVER;
  }
}

const isRecord = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const jsonValue = z.unknown().transform(bounded);
/** Takes any object whose content is JSON; gives plain values. */
export const jsonRecord = z
  .custom<object>(isRecord, 'must be an object')
  .transform((value, context) => bounded(value, context) as JsonRecord);
