/** Which part of vmferry speaks in an error. */
export type Side = 'source' | 'dest' | 'cli';

/** Where the guest runs when the error is reported; `unknown` only where that really cannot be told. */
export type GuestRunsOn = 'source' | 'dest' | 'neither' | 'unknown';

/** The phase of a migration in which something happened. */
export type Phase =
  | 'connect'
  | 'preflight'
  | 'setup'
  | 'precopy'
  | 'switchover'
  | 'postcopy'
  | 'completion'
  | 'rollback';

/**
 * Stable codes: scripts match on them, so one is never renamed or given another meaning.
 *
 * `E_USAGE`, `E_REFUSED` and everything found in preflight happen before anything was touched.
 */
const ERROR_CODES = [
  'E_USAGE',
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
  /** Nothing is left to finish: the destination has all of the guest. */
  'E_GUEST_MOVED',
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
  'E_LINK_LOST',
  'E_STALLED',
  'E_DEADLINE',
  'E_CANCELLED',
  'E_JOURNAL',
  'E_ANNOUNCE',
  'E_NATIVE',
  'E_TIMEOUT',
  'E_INTERNAL',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** One that came from elsewhere may be a later version's. */
export function isErrorCode(code: string): code is ErrorCode {
  return (ERROR_CODES as readonly string[]).includes(code);
}

export interface MigrationErrorFields {
  readonly code: ErrorCode;
  readonly side: Side;
  readonly phase: Phase;
  readonly guestRunsOn: GuestRunsOn;
  /** What the operator can do about it, as a sentence. */
  readonly remedy: string;
}

/** Texts that are told after one another, as sentences: some come with their full stop and some without. */
export function sentences(...texts: readonly string[]): string {
  return texts.map((text) => (/[.!?]$/.test(text) ? text : `${text}.`)).join(' ');
}

/** Remedies that are told as one. */
export function allOf(remedies: Iterable<string>): string {
  const given = [...remedies].filter((remedy) => remedy !== '');
  return given.map((remedy, i) => (i < given.length - 1 ? remedy.replace(/\.$/, '') : remedy)).join('; ');
}

/** What an error looks like in the JSON report and on the wire. */
export interface ErrorReport extends MigrationErrorFields {
  readonly message: string;
}

/** The one error that leaves an agent: what happened, where, where the guest runs now and what to do. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  readonly code: ErrorCode;
  readonly side: Side;
  readonly phase: Phase;
  readonly guestRunsOn: GuestRunsOn;
  readonly remedy: string;

  constructor(message: string, fields: MigrationErrorFields, options?: { cause?: unknown }) {
    super(message, options);
    this.code = fields.code;
    this.side = fields.side;
    this.phase = fields.phase;
    this.guestRunsOn = fields.guestRunsOn;
    this.remedy = fields.remedy;
  }

  report(): ErrorReport {
    const { code, message, side, phase, guestRunsOn, remedy } = this;
    return { code, message, side, phase, guestRunsOn, remedy };
  }
}

/**
 * What a guest's driver throws: it knows the fault and the remedy; the agent that catches it adds the
 * side, the phase and where the guest runs.
 */
export class GuestError extends Error {
  override readonly name = 'GuestError';

  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly remedy: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** The words of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
