import { ReportBuilder } from '@vmferry/engine/report/builder';
import type { MigrationReport, Outcome } from '@vmferry/engine/report/report';
import { millis } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import { renderJunit } from '../src/junit.ts';

const AT = new Date('2026-01-02T03:04:05.678Z');

function report(outcome: Outcome, error: MigrationReport['error'] = null): MigrationReport {
  const builder = new ReportBuilder({ guest: 'sim:web', strategy: 'hybrid', startedAt: millis(0) });
  return builder.build({ outcome, now: millis(1234), error });
}

const fault: MigrationReport['error'] = {
  code: 'E_GUEST_DAMAGED',
  message: 'page 7 lacks <1> write & "more"\u0007',
  side: 'dest',
  phase: 'completion',
  guestRunsOn: 'dest',
  remedy: 'report it',
};

describe('a JUnit report', () => {
  it('has the migration as one case, with its figures', () => {
    expect(renderJunit(report('completed'), AT)).toMatchInlineSnapshot(`
      "<?xml version="1.0" encoding="UTF-8"?>
      <testsuites name="vmferry" tests="1" failures="0" errors="0" skipped="0" time="1.234">
        <testsuite name="vmferry" tests="1" failures="0" errors="0" skipped="0" time="1.234" timestamp="2026-01-02T03:04:05">
          <testcase classname="vmferry.migrate" name="sim:web by hybrid" time="1.234">
            <properties>
              <property name="outcome" value="completed"/>
              <property name="strategy" value="hybrid"/>
              <property name="totalMs" value="1234"/>
              <property name="downtimeMs" value="0"/>
              <property name="rounds" value="0"/>
              <property name="rawBytes" value="0"/>
              <property name="wireBytes" value="0"/>
              <property name="faults" value="0"/>
            </properties>
            <system-out>outcome   completed: the guest runs on the destination
      strategy  hybrid
      total     1.23 s
      memory    0 B of the guest, 0 B on the wire
      pages     0 raw, 0 zero, 0 same, 0 delta
      note      Not measured in this run, shown as 0: the link.
      </system-out>
          </testcase>
        </testsuite>
      </testsuites>
      "
    `);
  });

  it.each([
    ['failed', 'failures="1" errors="0"', '<failure type="E_GUEST_DAMAGED"'],
    ['attention', 'failures="1" errors="0"', '<failure type="E_GUEST_DAMAGED"'],
    ['refused', 'failures="0" errors="1"', '<error type="E_GUEST_DAMAGED"'],
  ] as const)('tells a migration that ended as %s', (outcome, totals, element) => {
    const xml = renderJunit(report(outcome, fault), AT);
    expect(xml).toContain(totals);
    expect(xml).toContain(element);
    expect(xml).toContain('message="page 7 lacks &#60;1&#62; write &#38; &#34;more&#34;\ufffd"');
    expect(xml).toContain('the guest runs on the destination');
  });

  it('tells a cancelled one that has no error', () => {
    expect(renderJunit(report('cancelled'), AT)).toContain(
      '<error type="E_CANCELLED" message="the migration ended as cancelled"></error>',
    );
  });
});
