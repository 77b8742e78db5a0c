import { boundsError, nativeThrown } from '../errors.ts';
import { libvirtFailure } from './errors.ts';
import { libvirt } from './library.ts';
import { Lifeline } from './lifeline.ts';
import type { SettleCall } from './table.ts';

export interface CallOptions {
  /**
   * Gives the call up: it rejects with the signal's reason at once. libvirt cannot be stopped in the middle of a
   * call: it may still do what was asked, and nobody is told. A migration is different, see `Domain.migrateToUri`.
   */
  readonly signal?: AbortSignal;
}

/** A function of the table as a promise: its arguments without the last, which is what settles it. */
export function call<Handle, Args extends readonly unknown[], Value>(
  start: (handle: Handle, ...args: [...Args, settle: SettleCall<Value>]) => unknown,
  handle: Handle,
  ...args: Args
): Promise<Value> {
  const lifeline = Lifeline.of(handle);
  return new Promise<Value>((resolve, reject) => {
    let number: unknown;
    const settled = lifeline?.await((error) => {
      if (typeof number === 'number') libvirt().abandon(number);
      reject(error);
    });
    const settle: SettleCall<Value> = (failure, value) => {
      settled?.();
      if (failure === undefined) resolve(value);
      else reject(libvirtFailure(failure));
    };
    if (lifeline?.isCut) return;
    try {
      number = start(handle, ...args, settle);
    } catch (thrown) {
      settled?.();
      reject(nativeThrown(thrown));
    }
  });
}

/**
 * `call` that can be given up: then it rejects with the signal's reason. What comes of it nobody has, and so it is
 * collected.
 */
export function callUntil<Handle, Args extends readonly unknown[], Value>(
  signal: AbortSignal | undefined,
  start: (handle: Handle, ...args: [...Args, settle: SettleCall<Value>]) => number,
  handle: Handle,
  ...args: Args
): Promise<Value> {
  if (signal === undefined) return call(start, handle, ...args);
  if (signal.aborted) return Promise.reject(signal.reason);
  let number = 0;
  const numbered = (...all: Parameters<typeof start>) => {
    number = start(...all);
    return number;
  };
  const started = call(numbered, handle, ...args);
  return new Promise<Value>((resolve, reject) => {
    const onAbort = () => {
      libvirt().abandon(number);
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const settled = () => signal.removeEventListener('abort', onAbort);
    started.finally(settled).then(resolve, reject);
  });
}

export function requireText(value: string, name: string): string {
  if (typeof value !== 'string') throw boundsError(`${name} must be a string`);
  if (value.includes('\0')) throw boundsError(`${name} must not contain a zero byte`);
  return value;
}

export function requireWhole(value: number, least: number, most: number, name: string): number {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw boundsError(`${name} must be a whole number from ${least} to ${most}, not ${String(value)}`);
  }
  return value;
}

export const maxU64 = 2n ** 64n - 1n;

/** 64-bit numbers are given as a bigint, or as a number that is whole and exact (up to 2^53 - 1). */
export function requireU64(value: bigint | number, name: string): bigint {
  const exact = typeof value === 'bigint' || Number.isSafeInteger(value);
  const number = exact ? BigInt(value) : -1n;
  if (number < 0n || number > maxU64) {
    throw boundsError(`${name} must be a whole number from 0 to 2^64 - 1, not ${String(value)}`);
  }
  return number;
}
