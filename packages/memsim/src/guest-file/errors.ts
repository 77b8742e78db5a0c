/** A guest file or a name that means nothing here; says what to correct. */
export class GuestFileError extends Error {
  override readonly name = 'GuestFileError';
  readonly code = 'E_CONFIG';

  constructor(
    message: string,
    readonly remedy: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}
