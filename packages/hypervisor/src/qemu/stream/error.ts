import { GuestError } from '@vmferry/engine/errors';

/** Bytes of QEMU's migration protocol that break it. Nothing after them can be trusted. */
export class StreamError extends GuestError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(
      'E_STREAM',
      message,
      'Check that both hosts run QEMU releases that vmferry knows (7.2 to 10.0) and look into QEMU’s log for its own reason; then start the migration again.',
      options,
    );
  }
}
