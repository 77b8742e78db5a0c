/** A sweep as one HTML page that needs nothing else, no network either. */

import type { SweepRow } from '../sweep/row.ts';
import { MOST_CASES, type SweepResult } from '../sweep/run-sweep.ts';
import { plotLibraries } from './libraries.ts';
import { courses, downtimeAgainstTotal } from './plots.ts';

/** More marks than this are drawn on a canvas: as elements they would take a browser too long. */
const MOST_ELEMENTS = 3000;

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; background: #fff; }
h1 { font-size: 1.4rem; } p { max-width: 46rem; } .plot { margin: 1.5rem 0; overflow-x: auto; }
footer { color: #66727e; margin-top: 2rem; }
`;

export interface SweepPage {
  readonly name: string;
  readonly about?: string | undefined;
  readonly result: SweepResult;
  readonly at: Date;
}

export function sweepPage({ name, about, result, at }: SweepPage): string {
  const { rows } = result;
  const drawn = rows.filter(({ outcome, downtimeMs }) => outcome === 'completed' && downtimeMs > 0);
  const cases = [...new Set(result.courses.map(({ run }) => caseOf(rows[run]!)))];
  const data = {
    runs: drawn.map((row) => ({
      ...row,
      memory: memoryOf(row),
      totalSec: row.totalMs / 1000,
    })),
    rounds: result.courses.flatMap(({ run, rounds }) =>
      rounds.map(({ number, kind, wireBytes }) => ({
        case: caseOf(rows[run]!),
        strategy: rows[run]!.strategy,
        round: number,
        kind,
        megabytes: wireBytes / 1e6,
      })),
    ),
    series: result.courses.flatMap(({ run, series }) =>
      series.map(({ atMs, remainingBytes, faults }) => ({
        case: caseOf(rows[run]!),
        strategy: rows[run]!.strategy,
        sec: atMs / 1000,
        remaining: remainingBytes / 1e6,
        faults,
      })),
    ),
  };
  const rest = rows.length - drawn.length;
  const left =
    rest > 0
      ? ` Not drawn: ${rest} that did not complete; the JSON and the CSV have them with their reasons.`
      : '';
  const links = [...new Set(drawn.map(({ link }) => link))];
  const some =
    cases.length < countCases(rows)
      ? ` There are more than ${MOST_CASES} cases: the list below has ${cases.length} of ${countCases(rows)}, spread evenly.`
      : '';
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escaped(name)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(name)}</h1>
${about === undefined ? '' : `<p>${escaped(about)}</p>\n`}<p>${rows.length} simulated migration${rows.length === 1 ? '' : 's'}.${left}</p>
${drawn.length > 0 ? '<div class="plot" id="downtime"></div>\n' : ''}<p>How the migrations of one case went.${some}</p>
<div id="cases"></div>
<div class="plot" id="courses"></div>
<footer>vmferry sim, ${escaped(at.toISOString().slice(0, 19).replace('T', ' '))} UTC</footer>
<script type="application/json" id="data">${embedded(data)}</script>
${plotLibraries()
  .map((script) => `<script>${script}</script>`)
  .join('\n')}
<script>
const data = JSON.parse(document.getElementById('data').textContent);
const options = { actions: { export: true, source: false, compiled: false, editor: false }, renderer: ${JSON.stringify(drawn.length > MOST_ELEMENTS ? 'canvas' : 'svg')} };
const draw = (id, spec, names, more) => vegaEmbed('#' + id, { ...spec, datasets: Object.fromEntries(names.map((name) => [name, data[name]])) }, { ...options, ...more });
window.drawn = Promise.all([
  ${drawn.length > 0 ? `draw('downtime', ${embedded(downtimeAgainstTotal(links))}, ['runs']),` : ''}
  draw('courses', ${embedded(courses(cases, eventful(result)))}, ['rounds', 'series'], { bind: '#cases' }),
]);
</script>
</body>
</html>
`;
}

/** The case in which most happens: it is shown first. */
function eventful({ rows, courses: all }: SweepResult): string {
  const [first] = all.toSorted((a, b) => b.rounds.length - a.rounds.length);
  return first ? caseOf(rows[first.run]!) : '';
}

function caseOf(row: SweepRow): string {
  return `${row.guest}, ${memoryOf(row)}, ${row.link}`;
}

function countCases(rows: readonly SweepRow[]): number {
  return new Set(rows.map(caseOf)).size;
}

function memoryOf({ memoryBytes }: SweepRow): string {
  return memoryBytes >= 2 ** 30 ? `${trim(memoryBytes / 2 ** 30)} GiB` : `${trim(memoryBytes / 2 ** 20)} MiB`;
}

function trim(value: number): string {
  return value.toFixed(2).replace(/\.?0+$/, '');
}

/** JSON between script tags. */
function embedded(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll('<', '\\u003c')
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029');
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}
