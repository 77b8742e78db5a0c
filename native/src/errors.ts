import { getSystemErrorName } from 'node:util';

/**
 * - `E_NATIVE_MISSING`: the addon is not built, or was built without the library that the call needs.
 * - `E_NATIVE_BOUNDS`: an argument has the wrong type, or a length or number out of range. A bug of the caller.
 * - `E_NATIVE_CORRUPT`: a payload is not what was sent.
 * - `E_NATIVE_SYSTEM`: the operating system said no; `errno` says why ("ENODEV").
 * - `E_NATIVE_CLOSED`: used after it was closed or given back.
 */
export type NativeErrorCode =
  | 'E_NATIVE_MISSING'
  | 'E_NATIVE_BOUNDS'
  | 'E_NATIVE_CORRUPT'
  | 'E_NATIVE_SYSTEM'
  | 'E_NATIVE_CLOSED';

export class NativeError extends Error {
  override readonly name = 'NativeError';
  readonly code: NativeErrorCode;
  /** The name of the system's error, "EPERM". Only with `E_NATIVE_SYSTEM`. */
  readonly errno?: string;

  constructor(code: NativeErrorCode, message: string, options: { errno?: string; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    if (options.errno !== undefined) this.errno = options.errno;
  }
}

/** By the numbers of `Code` in cc/outcome.h. */
const codes: Readonly<Record<number, NativeErrorCode>> = {
  1: 'E_NATIVE_MISSING',
  2: 'E_NATIVE_BOUNDS',
  3: 'E_NATIVE_CORRUPT',
  4: 'E_NATIVE_SYSTEM',
  5: 'E_NATIVE_CLOSED',
};

/** The error of a failed job: what the addon hands to its callback. `errno` is 0 if there is none. */
export function nativeFailure(code: number, message: string, errno: number): NativeError {
  const name = codes[code];
  if (name === undefined) return new NativeError('E_NATIVE_SYSTEM', `unknown failure ${code}: ${message}`);
  return errno === 0 ? new NativeError(name, message) : withErrno(name, message, getSystemErrorName(-errno));
}

/** Makes what the addon throws a `NativeError`; anything else is handed through. */
export function nativeThrown(thrown: unknown, about?: string): unknown {
  if (!(thrown instanceof Error) || thrown instanceof NativeError) return thrown;
  const { code, errno } = thrown as { code?: unknown; errno?: unknown };
  if (typeof code !== 'number') return thrown;
  const message = about === undefined ? thrown.message : `${about}: ${thrown.message}`;
  return nativeFailure(code, message, typeof errno === 'number' ? errno : 0);
}

export function boundsError(message: string): NativeError {
  return new NativeError('E_NATIVE_BOUNDS', message);
}

function withErrno(code: NativeErrorCode, message: string, errno: string): NativeError {
  return new NativeError(code, `${message} (${errno})`, { errno });
}
