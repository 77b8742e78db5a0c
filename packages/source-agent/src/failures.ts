/** Any error as what a report says of it. */
import {
  allOf,
  type ErrorCode,
  type ErrorReport,
  GuestError,
  isErrorCode,
  MigrationError,
  messageOf,
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

/** A code that came from a peer: those of a later version are none of ours. */
export function knownCode(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'E_PROTOCOL';
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
    message: messageOf(error),
    side: 'source',
    remedy: 'report this as a defect of vmferry, with the log of both agents',
  };
}

/** The same whichever notices first, who sends or who listens. */
export function linkLost(how: string): FailureFacts {
  return {
    code: 'E_LINK_LOST',
    message: `The link to the destination was lost: ${how}`,
    side: 'source',
    remedy:
      'Check that the destination and its agent are up, and that the network between the hosts carries traffic.',
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
    remedy: allOf(new Set(reasons.map((reason) => reason.remedy))),
  };
}
