/**
 * libvirt's typed parameters: fields with names, each of one of seven types. As plain objects a 64-bit field is a
 * bigint whatever its value, a 32-bit one or a double is a number. On the way in a 64-bit field also takes a number
 * that is whole and exact.
 */
import { boundsError } from '../errors.ts';
import { maxU64, requireText, requireU64, requireWhole } from './call.ts';
import type { NativeParameters, ParameterEntry } from './table.ts';

export type ParameterType = 'int' | 'uint' | 'llong' | 'ullong' | 'double' | 'boolean' | 'string';

/** virTypedParameterType */
const typeNumbers: Readonly<Record<ParameterType, number>> = {
  int: 1,
  uint: 2,
  llong: 3,
  ullong: 4,
  double: 5,
  boolean: 6,
  string: 7,
};

export type ParameterValue = number | bigint | boolean | string;

/** By libvirt's names. A field that comes several times is an array. */
export type Parameters = NativeParameters;

const i32 = 2 ** 31;

function checked(type: ParameterType, value: ParameterValue, field: string): ParameterValue {
  switch (type) {
    case 'int':
      return requireWhole(value as number, -i32, i32 - 1, field);
    case 'uint':
      return requireWhole(value as number, 0, 2 * i32 - 1, field);
    case 'llong':
      return requireI64(value, field);
    case 'ullong':
      return requireU64(value as bigint | number, field);
    case 'double':
      if (typeof value !== 'number') throw boundsError(`${field} must be a number`);
      return value;
    case 'boolean':
      if (typeof value !== 'boolean') throw boundsError(`${field} must be a boolean`);
      return value;
    case 'string':
      return requireText(value as string, field);
  }
}

function requireI64(value: ParameterValue, field: string): bigint {
  const exact = typeof value === 'bigint' || Number.isSafeInteger(value);
  const number = exact ? BigInt(value as bigint | number) : maxU64;
  if (BigInt.asIntN(64, number) !== number) {
    throw boundsError(`${field} must be a whole number from -2^63 to 2^63 - 1, not ${String(value)}`);
  }
  return number;
}

/** One field for the addon. Throws `E_NATIVE_BOUNDS` for a value that is not of the type. */
export function parameter(field: string, type: ParameterType, value: ParameterValue): ParameterEntry {
  return [field, typeNumbers[type], checked(type, value, field)];
}
