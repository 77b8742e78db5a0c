/** Reports of migrations that the command itself ended, or never began. */

import { fromWireError } from '@vmferry/agent-core/wire-errors';
import { type ErrorReport, MigrationError, messageOf } from '@vmferry/engine/errors';
import type { Strategy } from '@vmferry/engine/options';
import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { millis } from '@vmferry/engine/units';
import { WireError } from '@vmferry/wire/errors';

export interface Asked {
  readonly guest: string;
  readonly strategy: Strategy;
}

const NOTHING_ASKED: Asked = { guest: '', strategy: 'auto' };

/** A report without figures: what was not measured is 0. */
export function bareReport(
  outcome: Outcome,
  error: ErrorReport | null,
  asked: Asked = NOTHING_ASKED,
): MigrationReport {
  return new ReportBuilder({ ...asked, startedAt: millis(0) }).build({ outcome, now: millis(0), error });
}

export function refusedReport(error: ErrorReport, asked?: Asked): MigrationReport {
  return bareReport('refused', error, asked);
}

const UNTOUCHED = { side: 'cli', phase: 'preflight', guestRunsOn: 'source' } as const;

export function usageError(message: string): MigrationError {
  return new MigrationError(message, {
    ...UNTOUCHED,
    code: 'E_USAGE',
    remedy: 'Correct the command line; `vmferry COMMAND --help` has the options and examples.',
  });
}

/** Any error as a report's. What is not one of ours is a defect, and said to be. */
export function errorReportOf(thrown: unknown): ErrorReport {
  if (thrown instanceof MigrationError) return thrown.report();
  if (thrown instanceof WireError) return fromWireError(thrown, { ...UNTOUCHED, phase: 'connect' }).report();
  return {
    ...UNTOUCHED,
    code: 'E_INTERNAL',
    guestRunsOn: 'unknown',
    message: messageOf(thrown),
    remedy: 'Please report it, with what VMFERRY_DEBUG=1 in the environment makes the command say.',
  };
}
