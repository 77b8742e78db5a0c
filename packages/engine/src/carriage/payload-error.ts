/** What a peer sent breaks the protocol: nothing was allocated or written for it. */
export class PayloadError extends Error {
  override readonly name = 'PayloadError';
  readonly code = 'E_PROTOCOL';
}
