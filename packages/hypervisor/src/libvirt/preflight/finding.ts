import { type ErrorCode, GuestError } from '@vmferry/engine/errors';

/** What preflight has found: what is in the way, or only what should be known. */
export interface Finding {
  /** With a refusal there is no migration; a warning is told, and the migration goes on. */
  readonly severity: 'refusal' | 'warning';
  /** Stable, see `ErrorCode`. */
  readonly code: ErrorCode;
  /** What was found, with both sides' values where there are two. */
  readonly message: string;
  /** What to do about it, as a sentence. */
  readonly remedy: string;
}

export function refusal(code: ErrorCode, message: string, remedy: string): Finding {
  return { severity: 'refusal', code, message, remedy };
}

export function warning(code: ErrorCode, message: string, remedy: string): Finding {
  return { severity: 'warning', code, message, remedy };
}

/** The refusals as a guest's driver reports them. */
export function refusals(findings: readonly Finding[]): GuestError[] {
  return findings
    .filter(({ severity }) => severity === 'refusal')
    .map(({ code, message, remedy }) => new GuestError(code, message, remedy));
}

/** The warnings as sentences for the report's notes. */
export function notes(findings: readonly Finding[]): string[] {
  return findings
    .filter(({ severity }) => severity === 'warning')
    .map(({ message, remedy }) => `${message[0]?.toUpperCase() ?? ''}${message.slice(1)}. ${remedy}`);
}
