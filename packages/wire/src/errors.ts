/** Stable codes of what can go wrong between two ends of a connection. */
export type WireErrorCode =
  /** A message is no frame of ours. */
  | 'E_FRAME'
  /** A payload is not what its sender hashed. */
  | 'E_CHECKSUM'
  /** A frame or an acknowledgement came out of turn. */
  | 'E_SEQUENCE'
  /** Something is larger than was agreed. */
  | 'E_LIMIT'
  /** A control message is not what its type says, or its type is not known. */
  | 'E_MESSAGE'
  | 'E_VERSION'
  | 'E_AUTH'
  | 'E_TLS'
  | 'E_CONNECT'
  | 'E_CLOSED'
  | 'E_TIMEOUT'
  /** Plain text to another host was refused. */
  | 'E_INSECURE';

const protocolRemedy =
  'Check that both agents run a released vmferry; if they do, please report it together with both logs.';

const remedies: Readonly<Record<WireErrorCode, string>> = {
  E_FRAME: protocolRemedy,
  E_CHECKSUM: 'Check the network and the memory of both hosts: data was changed on its way.',
  E_SEQUENCE: protocolRemedy,
  E_LIMIT: 'Give both agents the same limits.',
  E_MESSAGE: protocolRemedy,
  E_VERSION: 'Update the older of the two agents.',
  E_AUTH: 'Give both agents the same token.',
  E_TLS: 'Check the certificate, key and CA files of both agents.',
  E_CONNECT: 'Check that the agent runs there and that its address and port are right.',
  E_CLOSED: 'Look into the log of the other agent for the reason.',
  E_TIMEOUT: 'Check that the other host is up and that the network between the hosts carries traffic.',
  E_INSECURE: 'Use wss:// with certificates, or allow plain text with --insecure.',
};

/** What goes wrong on a connection. `remedy` is a sentence for the operator. */
export class WireError extends Error {
  override readonly name = 'WireError';
  readonly code: WireErrorCode;
  readonly remedy: string;

  constructor(code: WireErrorCode, message: string, options: { remedy?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy ?? remedies[code];
  }
}

/** What the peer said of its own failure. `side`, `phase` and `guestRunsOn` come with `failure` only. */
export interface PeerReport {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  readonly side?: string;
  readonly phase?: string;
  readonly guestRunsOn?: string;
}

/** The peer refused us (`refuse`) or failed (`failure`), in its own words. */
export class PeerError extends Error {
  override readonly name = 'PeerError';
  readonly code: string;
  readonly remedy: string;

  constructor(
    readonly kind: 'refuse' | 'failure',
    readonly report: PeerReport,
  ) {
    super(report.message);
    this.code = report.code;
    this.remedy = report.remedy;
  }
}

/** Turns whatever was thrown into a `WireError`, which it becomes the cause of unless it is one. */
export function asWireError(thrown: unknown, code: WireErrorCode, doing: string): WireError {
  if (thrown instanceof WireError) return thrown;
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  return new WireError(code, `${doing}: ${why}`, { cause: thrown });
}
