/** Any error as what a report says of it. */
import {
  type ErrorCode,
  type ErrorReport,
  GuestError,
  MigrationError,
  type Phase,
} from '@vmferry/engine/errors';
import { PeerError, WireError } from '@vmferry/wire/errors';

const wireCodes: Readonly<Record<string, ErrorCode>> = {
  E_CONNECT: 'E_CONNECT',
  E_TLS: 'E_TLS',
  E_INSECURE: 'E_CONFIG',
  E_AUTH: 'E_AUTH',
  E_VERSION: 'E_VERSION',
  E_CLOSED: 'E_LINK_LOST',
  E_TIMEOUT: 'E_TIMEOUT',
  E_LIMIT: 'E_LIMIT',
};

const known = new Set<string>([
  'E_CONFIG',
  'E_CONNECT',
  'E_TLS',
  'E_AUTH',
  'E_VERSION',
  'E_PROTOCOL',
  'E_LIMIT',
  'E_REFUSED',
  'E_GUEST_UNREACHABLE',
  'E_GUEST_BLOCKED',
  'E_GUEST_MISMATCH',
  'E_GUEST_BUSY',
  'E_GUEST_GONE',
  'E_GUEST_FAILED',
  'E_GUEST_DAMAGED',
  'E_NOT_INCOMING',
  'E_NO_USERFAULTFD',
  'E_CPU_INCOMPATIBLE',
  'E_MACHINE_UNKNOWN',
  'E_NO_MEMORY',
  'E_DEVICE_BOUND',
  'E_DEVICE_UNKNOWN',
  'E_DISK_UNSAFE',
  'E_FILE_MISSING',
  'E_FILE_EXISTS',
  'E_NO_SPACE',
  'E_NO_NETWORK',
  'E_NAME_TAKEN',
  'E_HYPERVISOR_OLDER',
  'E_CLOCK_APART',
  'E_DEST_XML',
  'E_UNSUPPORTED',
  'E_STREAM',
  'E_STALLED',
  'E_DEADLINE',
  'E_LINK_LOST',
  'E_JOURNAL',
  'E_TIMEOUT',
  'E_CANCELLED',
  'E_INTERNAL',
]);

/** A code that came from a peer: those of a later version are none of ours. */
export function knownCode(code: string): ErrorCode {
  return known.has(code) ? (code as ErrorCode) : 'E_PROTOCOL';
}

/** What is known of a failure wherever it was caught. */
export interface FailureFacts {
  readonly code: ErrorCode;
  readonly message: string;
  readonly side: 'source' | 'dest';
  readonly remedy: string;
}

export function factsOf(error: unknown): FailureFacts {
  if (error instanceof MigrationError) {
    return {
      code: error.code,
      message: error.message,
      side: error.side === 'dest' ? 'dest' : 'source',
      remedy: error.remedy,
    };
  }
  if (error instanceof GuestError) {
    return { code: error.code, message: error.message, side: 'source', remedy: error.remedy };
  }
  if (error instanceof PeerError) {
    return { code: knownCode(error.code), message: error.message, side: 'dest', remedy: error.remedy };
  }
  if (error instanceof WireError) {
    return {
      code: wireCodes[error.code] ?? 'E_PROTOCOL',
      message: error.message,
      side: 'source',
      remedy: error.remedy,
    };
  }
  return {
    code: 'E_INTERNAL',
    message: error instanceof Error ? error.message : String(error),
    side: 'source',
    remedy: 'report this as a defect of vmferry, with the log of both agents',
  };
}

/** Thrown to leave preflight: what was asked for is refused, and nothing was touched. */
export class Refused extends Error {
  constructor(readonly report: ErrorReport) {
    super(report.message);
  }
}

/** Several reasons become one error that names them all. */
export function refusal(reasons: readonly GuestError[], side: 'source' | 'dest', phase: Phase): ErrorReport {
  const [first] = reasons;
  return {
    code: first?.code ?? 'E_REFUSED',
    message: reasons.map((reason) => reason.message).join('; '),
    side,
    phase,
    guestRunsOn: 'source',
    remedy: [...new Set(reasons.map((reason) => reason.remedy))].join('; '),
  };
}
