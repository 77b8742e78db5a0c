/** `--junit`: the report as the test result that CI systems show. One suite with one case, the migration. */
import { open, writeFile } from 'node:fs/promises';
import { MigrationError, messageOf } from '@vmferry/engine/errors';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { renderError, renderSummary } from './display/summary.ts';

/** Makes the file, so that one that cannot be written is told before anything is begun. Rejects with `E_CONFIG`. */
export async function openJunit(file: string): Promise<void> {
  try {
    await (await open(file, 'w')).close();
  } catch (cause) {
    throw unwritable(file, cause);
  }
}

/** Rejects with `E_CONFIG`. */
export async function writeJunit(file: string, report: MigrationReport, at: Date): Promise<void> {
  try {
    await writeFile(file, renderJunit(report, at));
  } catch (cause) {
    throw unwritable(file, cause);
  }
}

/** `at` is when the migration ended. */
export function renderJunit(report: MigrationReport, at: Date): string {
  const { outcome, guest, strategy, totalMs, error } = report;
  const seconds = (totalMs / 1000).toFixed(3);
  const failed = outcome === 'failed' || outcome === 'attention';
  const broken = outcome === 'refused' || outcome === 'cancelled';
  const totals = `tests="1" failures="${failed ? 1 : 0}" errors="${broken ? 1 : 0}" skipped="0" time="${seconds}"`;
  const name = guest === '' ? 'migration' : `${guest} by ${strategy}`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="vmferry" ${totals}>`,
    `  <testsuite name="vmferry" ${totals} timestamp="${at.toISOString().slice(0, 19)}">`,
    `    <testcase classname="vmferry.migrate" name="${escaped(name)}" time="${seconds}">`,
    '      <properties>',
    ...propertiesOf(report).map(
      ([key, value]) => `        <property name="${key}" value="${escaped(value)}"/>`,
    ),
    '      </properties>',
    ...(failed || broken ? [faultOf(failed ? 'failure' : 'error', report)] : []),
    `      <system-out>${escaped(renderSummary({ ...report, error: null }))}</system-out>`,
    ...(error === null ? [] : [`      <system-err>${escaped(renderError(error))}</system-err>`]),
    '    </testcase>',
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n');
}

function propertiesOf(report: MigrationReport): [string, string][] {
  const { downtimeMs, rawBytes, wireBytes, rounds, faults } = report;
  return [
    ['outcome', report.outcome],
    ['strategy', report.strategy],
    ['totalMs', String(report.totalMs)],
    ['downtimeMs', String(downtimeMs)],
    ['rounds', String(rounds.length)],
    ['rawBytes', String(rawBytes)],
    ['wireBytes', String(wireBytes)],
    ['faults', String(faults.count)],
  ];
}

function faultOf(tag: 'failure' | 'error', { outcome, error }: MigrationReport): string {
  const message = error?.message ?? `the migration ended as ${outcome}`;
  const type = error?.code ?? 'E_CANCELLED';
  const text = error === null ? '' : renderError(error);
  return `      <${tag} type="${escaped(type)}" message="${escaped(message)}">${escaped(text)}</${tag}>`;
}

/** Characters that XML does not have at all are replaced: they may come from a peer. */
function escaped(text: string): string {
  return text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\u{fffd}')
    .replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}

function unwritable(file: string, cause: unknown): MigrationError {
  const why = messageOf(cause);
  return new MigrationError(
    `cannot write the JUnit report to ${file}: ${why}`,
    {
      code: 'E_CONFIG',
      side: 'cli',
      phase: 'preflight',
      guestRunsOn: 'source',
      remedy: 'Give --junit a file in a directory that exists and that you may write to.',
    },
    { cause },
  );
}
