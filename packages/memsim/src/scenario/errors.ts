/** A scenario that cannot be simulated as it is written; says what to correct. */
export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
  readonly code = 'E_CONFIG';

  constructor(
    message: string,
    readonly remedy: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}
