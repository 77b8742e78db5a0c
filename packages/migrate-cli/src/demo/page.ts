/** The demo's result as one HTML file that needs nothing else. */
import { sentences } from '@vmferry/engine/errors';
import { formatDuration, formatRate, formatSize } from '../units.ts';
import type { DemoMove, DemoResult } from './qemu-demo.ts';
import { COLUMNS, cellsOf } from './table.ts';

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #d5dce3; text-align: right; white-space: nowrap; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
.left th:nth-child(2), .left td:nth-child(2) { text-align: left; }
p, li { max-width: 46rem; } .bad { color: #a11; font-weight: 600; } footer { color: #66727e; margin-top: 2rem; }
@media (prefers-color-scheme: dark) { body { background: #14191f; color: #dde4ea; } th, td { border-color: #36414c; }
.bad { color: #f77; } }
`;

/** `at` stamps the page. */
export function renderPage(result: DemoResult, at: Date): string {
  const { setting, moves, verdict } = result;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vmferry demo</title>
<style>${STYLE}</style>
</head>
<body>
<h1>A running guest, moved by every strategy</h1>
<ul>
${setting.map((line) => `<li>${escaped(line)}</li>`).join('\n')}
</ul>
${table('left', COLUMNS, moves.map(cellsOf))}
<p${verdict.sound ? '' : ' class="bad"'}>${escaped(verdict.words)}</p>
<p>Downtime is the guest's own, from its stop on one host to its run on the other, with the uncertainty of the
two clocks. The client gap is the longest time in which a client on the network had no reply.</p>
<h2>Round by round</h2>
${moves.map(section).join('\n')}
<footer>vmferry demo, ${escaped(at.toISOString().slice(0, 19).replace('T', ' '))} UTC</footer>
</body>
</html>
`;
}

const ROUND_COLUMNS = ['round', 'pages', 'guest memory', 'on the wire', 'time', 'dirty rate', 'bandwidth'];

function section(move: DemoMove): string {
  const { report, strategy, from, to, client } = move;
  const rows = report.rounds.map((row) => [
    String(row.round),
    String(row.pages),
    formatSize(row.rawBytes),
    formatSize(row.wireBytes),
    formatDuration(row.durationMs),
    formatRate(row.dirtyBytesPerSec),
    formatRate(row.bandwidthBytesPerSec),
  ]);
  const { downtime, faults, pages } = report;
  const facts = [
    ...(report.switchover.reason === '' ? [] : [`Switchover: ${report.switchover.reason}`]),
    ...(report.downtimeMs > 0
      ? [
          `Downtime: final pages ${formatDuration(downtime.finalPagesMs)}, device state ` +
            `${formatDuration(downtime.deviceStateMs)}, commit ${formatDuration(downtime.commitMs)}, ` +
            `resume ${formatDuration(downtime.resumeMs)}`,
        ]
      : []),
    `Pages: ${pages.raw} raw, ${pages.zero} zero, ${pages.same} same, ${pages.delta} delta`,
    ...(faults.count > 0
      ? [
          `Page faults: ${faults.count}, half within ${formatDuration(faults.p50Ms)}, 99 % within ` +
            `${formatDuration(faults.p99Ms)}, the longest ${formatDuration(faults.maxMs)}`,
        ]
      : []),
    ...(client === null
      ? []
      : [
          `Client: longest gap ${formatDuration(client.udpGapMs)} over UDP, ${formatDuration(client.tcpGapMs)} ` +
            `over TCP; its connection ${client.survived ? 'lived on' : 'was lost'}`,
        ]),
    ...report.notes,
    ...(report.error === null ? [] : [sentences(report.error.message, report.error.remedy)]),
  ];
  return `<section>
<h3>${escaped(strategy)}: ${escaped(from)} to ${escaped(to)}</h3>
${rows.length === 0 ? '' : table('', ROUND_COLUMNS, rows)}
<ul>
${facts.map((fact) => `<li>${escaped(fact)}</li>`).join('\n')}
</ul>
</section>`;
}

function table(kind: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (tag: 'th' | 'td', cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('')}</tr>`;
  return `<table${kind === '' ? '' : ` class="${kind}"`}>
<thead>${line('th', head)}</thead>
<tbody>
${rows.map((cells) => line('td', cells)).join('\n')}
</tbody>
</table>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}
