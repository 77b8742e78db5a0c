import { GuestError } from '@vmferry/engine/errors';

/** Stable codes of what can go wrong between vmferry and a monitor. */
export type QmpErrorCode =
  /** There is no file at the socket's path. */
  | 'E_QMP_NOT_FOUND'
  /** The socket's file is there and nobody listens. */
  | 'E_QMP_REFUSED'
  | 'E_QMP_ACCESS'
  | 'E_QMP_NOT_A_SOCKET'
  /** Any other failure of connecting. */
  | 'E_QMP_CONNECT'
  /** No greeting: another client holds the monitor. */
  | 'E_QMP_TAKEN'
  /** Something answers that does not speak QMP. */
  | 'E_QMP_NOT_QMP'
  /** A message longer than the limit. */
  | 'E_QMP_TOO_LONG'
  /** A message that QMP does not have. */
  | 'E_QMP_PROTOCOL'
  | 'E_QMP_TIMEOUT'
  /** The connection is gone. */
  | 'E_QMP_CLOSED'
  /** QEMU refused a command; `class` has QMP's own class. */
  | 'E_QMP_COMMAND'
  /** QEMU's answer is not of the shape that vmferry knows. */
  | 'E_QMP_REPLY'
  /** A subscriber threw while it was told an event. */
  | 'E_QMP_LISTENER';

export interface QmpErrorFields {
  /** QMP's error class, e.g. "GenericError" or "CommandNotFound". */
  readonly class?: string;
  /** The command that failed, or the ones that were waiting, separated by ", ". */
  readonly command?: string;
}

export class QmpError extends Error {
  override readonly name = 'QmpError';
  readonly class: string | undefined;
  readonly command: string | undefined;

  constructor(
    readonly code: QmpErrorCode,
    message: string,
    fields: QmpErrorFields = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.class = fields.class;
    this.command = fields.command;
  }
}

/** The connection to the monitor is gone. */
export function isClosed(error: unknown): error is QmpError {
  return error instanceof QmpError && error.code === 'E_QMP_CLOSED';
}

/** QEMU does not do what it was told, or does not know it. */
export function isRefusal(error: unknown): error is QmpError {
  return error instanceof QmpError && error.code === 'E_QMP_COMMAND';
}

/** No QEMU has the monitor's path. */
export function isNobodyThere({ code }: QmpError): boolean {
  return code === 'E_QMP_NOT_FOUND' || code === 'E_QMP_REFUSED';
}

type GuestCode = ConstructorParameters<typeof GuestError>[0];

const meaning: Record<QmpErrorCode, readonly [GuestCode, remedy: string]> = {
  E_QMP_NOT_FOUND: [
    'E_GUEST_UNREACHABLE',
    'Start QEMU with -qmp unix:PATH,server=on,wait=off and name that PATH.',
  ],
  E_QMP_REFUSED: [
    'E_GUEST_UNREACHABLE',
    'Check that the guest runs; the socket was left by a QEMU that ended.',
  ],
  E_QMP_ACCESS: ['E_GUEST_UNREACHABLE', 'Run the agent as root or as the user that owns the monitor socket.'],
  E_QMP_NOT_A_SOCKET: ['E_GUEST_UNREACHABLE', 'Name the path that QEMU was given with -qmp unix:PATH.'],
  E_QMP_CONNECT: ['E_GUEST_UNREACHABLE', 'Check the path of the monitor socket.'],
  E_QMP_TAKEN: ['E_GUEST_UNREACHABLE', 'Give QEMU a second -qmp socket and name that one.'],
  E_QMP_NOT_QMP: [
    'E_GUEST_UNREACHABLE',
    'Name a socket that QEMU was given with -qmp, not -monitor or -serial.',
  ],
  E_QMP_TOO_LONG: ['E_GUEST_UNREACHABLE', 'Name a socket that QEMU was given with -qmp.'],
  E_QMP_PROTOCOL: ['E_GUEST_FAILED', 'Check that the socket belongs to a QEMU of version 6 or newer.'],
  E_QMP_TIMEOUT: [
    'E_GUEST_UNREACHABLE',
    'Check whether QEMU hangs, for example on storage that does not answer.',
  ],
  E_QMP_CLOSED: ['E_GUEST_GONE', "Look into QEMU's log for why it ended."],
  E_QMP_COMMAND: ['E_GUEST_FAILED', "See QEMU's own words in the message."],
  E_QMP_REPLY: ['E_UNSUPPORTED', 'Use a QEMU between 6.0 and 11, or report this version.'],
  E_QMP_LISTENER: ['E_INTERNAL', 'Report this as a defect of vmferry, with its log.'],
};

/** Nothing is asked that newer versions lack. */
const TOO_OLD = ['E_UNSUPPORTED', 'Use a QEMU of version 6 or newer.'] as const;

/** What a fault of the monitor means for the guest. Errors that are no `QmpError` come back as they are. */
export function asGuestError(error: unknown): unknown {
  if (!(error instanceof QmpError)) return error;
  const [code, remedy] = error.class === 'CommandNotFound' ? TOO_OLD : meaning[error.code];
  return new GuestError(code, error.message, remedy, { cause: error });
}
