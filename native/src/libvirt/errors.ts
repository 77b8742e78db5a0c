import { type NativeError, nativeFailure } from '../errors.ts';
import { errorCodes, errorDomains, errorLevels } from './error-names.ts';
import type { NativeFailure } from './table.ts';

export type LibvirtErrorCode = keyof typeof errorCodes;
export type LibvirtErrorDomain = keyof typeof errorDomains;
export type LibvirtErrorLevel = keyof typeof errorLevels;

/**
 * What libvirt answers when it does not do what was asked. What is wrong on our side of it is a `NativeError`:
 * `E_NATIVE_BOUNDS` (an argument), `E_NATIVE_CLOSED` (freed or closed), `E_NATIVE_MISSING` (no libvirt, or one without
 * the function), `E_NATIVE_SYSTEM` (no thread, no memory).
 */
export class LibvirtError extends Error {
  override readonly name = 'LibvirtError';
  /** libvirt's name of it, "VIR_ERR_NO_DOMAIN"; "VIR_ERR_<number>" for one that is newer than these tables. */
  readonly code: LibvirtErrorCode | `VIR_ERR_${number}`;
  readonly codeNumber: number;
  /** Which part of libvirt says so, "VIR_FROM_QEMU". */
  readonly domain: LibvirtErrorDomain | `VIR_FROM_${number}`;
  readonly domainNumber: number;
  readonly level: LibvirtErrorLevel | `VIR_ERR_${number}`;
  readonly levelNumber: number;
  /** libvirt's function that failed, "virDomainSuspend". */
  readonly call: string;
  /** What libvirt keeps of the message's parts; their meaning depends on the code. No empty ones. */
  readonly details: readonly string[];

  constructor(failure: NativeFailure) {
    super(failure.message);
    this.code = nameOf(codeNames, failure.number) ?? `VIR_ERR_${failure.number}`;
    this.codeNumber = failure.number;
    this.domain = nameOf(domainNames, failure.domain) ?? `VIR_FROM_${failure.domain}`;
    this.domainNumber = failure.domain;
    this.level = nameOf(levelNames, failure.level) ?? `VIR_ERR_${failure.level}`;
    this.levelNumber = failure.level;
    this.call = failure.call;
    this.details = failure.details.filter((detail) => detail !== '');
  }
}

/** Whether this is libvirt's error with one of these names. */
export function isLibvirtError(error: unknown, ...codes: readonly LibvirtErrorCode[]): error is LibvirtError {
  return error instanceof LibvirtError && (codes as readonly string[]).includes(error.code);
}

/** QEMU refused a monitor command; libvirt carried it and its answer. */
export class MonitorCommandError extends Error {
  override readonly name = 'MonitorCommandError';
  readonly code = 'E_MONITOR_COMMAND';
  readonly command: string;
  /** QEMU's, "CommandNotFound". */
  readonly errorClass: string;

  constructor(command: string, error: { readonly class?: string; readonly desc?: string }) {
    super(`QEMU refused ${command}: ${error.desc ?? 'without a reason'}`);
    this.command = command;
    this.errorClass = error.class ?? 'GenericError';
  }
}

/** The error of a call that failed. */
export function libvirtFailure(failure: NativeFailure): LibvirtError | NativeError {
  return failure.code === 0 ? new LibvirtError(failure) : nativeFailure(failure.code, failure.message, 0);
}

const codeNames = byNumber(errorCodes);
const domainNames = byNumber(errorDomains);
const levelNames = byNumber(errorLevels);

function byNumber<Name extends string>(numbers: Readonly<Record<Name, number>>): ReadonlyMap<number, Name> {
  return new Map((Object.entries(numbers) as [Name, number][]).map(([name, number]) => [number, name]));
}

function nameOf<Name extends string>(names: ReadonlyMap<number, Name>, number: number): Name | undefined {
  return names.get(number);
}
