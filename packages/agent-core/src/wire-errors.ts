/** The wire's errors as errors of a migration. */
import { type ErrorCode, MigrationError, type MigrationErrorFields } from '@vmferry/engine/errors';
import { WireError, type WireErrorCode } from '@vmferry/wire/errors';

const CODES: Readonly<Record<WireErrorCode, ErrorCode>> = {
  E_FRAME: 'E_PROTOCOL',
  E_CHECKSUM: 'E_PROTOCOL',
  E_SEQUENCE: 'E_PROTOCOL',
  E_MESSAGE: 'E_PROTOCOL',
  E_LIMIT: 'E_LIMIT',
  E_VERSION: 'E_VERSION',
  E_AUTH: 'E_AUTH',
  E_TLS: 'E_TLS',
  E_CONNECT: 'E_CONNECT',
  E_CLOSED: 'E_LINK_LOST',
  E_TIMEOUT: 'E_TIMEOUT',
  E_INSECURE: 'E_CONFIG',
};

/** Adds what the wire does not know: which side speaks, the phase, where the guest runs. */
export function fromWireError(
  error: WireError,
  where: Pick<MigrationErrorFields, 'side' | 'phase' | 'guestRunsOn'>,
): MigrationError {
  return new MigrationError(
    error.message,
    { ...where, code: CODES[error.code], remedy: error.remedy },
    { cause: error },
  );
}

/** Passes on a `WireError` as `fromWireError` does, and anything else as it is. */
export function rethrowWireError(
  thrown: unknown,
  where: Pick<MigrationErrorFields, 'side' | 'phase' | 'guestRunsOn'>,
): never {
  throw thrown instanceof WireError ? fromWireError(thrown, where) : thrown;
}
