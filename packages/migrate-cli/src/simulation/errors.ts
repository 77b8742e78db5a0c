/** What is wrong with a scenario or a guest file, as the command reports it. */
import { MigrationError } from '@vmferry/engine/errors';
import { GuestFileError } from '@vmferry/memsim/guest-file/errors';
import { ScenarioError } from '@vmferry/memsim/scenario/errors';

export function withFileErrors<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof ScenarioError || cause instanceof GuestFileError)) throw cause;
    throw new MigrationError(
      cause.message,
      { code: cause.code, side: 'cli', phase: 'preflight', guestRunsOn: 'source', remedy: cause.remedy },
      { cause },
    );
  }
}
