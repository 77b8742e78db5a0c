/** The plots of a sweep, as vega-lite reads them. Data come by name. */

const STRATEGIES = ['auto', 'precopy', 'hybrid', 'postcopy'];
const colour = {
  field: 'strategy',
  type: 'nominal',
  scale: { domain: STRATEGIES, range: ['#4c78a8', '#f58518', '#54a24b', '#b279a2'] },
  title: 'strategy',
};
const WIDTH = 800;
/** Shapes that can be told apart. */
const MOST_SHAPES = 8;
const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';
const seconds = (field: string, title: string) => ({
  field,
  type: 'quantitative',
  title,
  scale: { type: 'log', nice: true },
});

/** One point a run. */
export const downtimeAgainstTotal = (links: readonly string[]): object => ({
  $schema: SCHEMA,
  title: 'Downtime against total time',
  width: WIDTH,
  height: 420,
  data: { name: 'runs' },
  params: [{ name: 'zoom', select: 'interval', bind: 'scales' }],
  mark: { type: 'point', filled: true, size: 45, opacity: 0.7 },
  encoding: {
    x: seconds('totalSec', 'total time, s'),
    y: seconds('downtimeMs', 'downtime, ms'),
    color: colour,
    shape: {
      field: 'link',
      type: 'nominal',
      legend: links.length > 1 && links.length <= MOST_SHAPES ? { title: 'link', labelLimit: 100 } : null,
    },
    tooltip: [
      'guest',
      'memory',
      'link',
      'strategy',
      'chosen',
      'totalSec',
      'downtimeMs',
      'rounds',
      'faults',
    ].map((field) => ({ field })),
  },
});

/** The courses of one case's runs, which is chosen from a list; `shown` at first. */
export function courses(cases: readonly string[], shown: string): object {
  const chosen = { filter: 'datum.case === shown' };
  return {
    $schema: SCHEMA,
    params: [
      {
        name: 'shown',
        value: shown,
        bind: { input: 'select', options: cases, name: 'guest, memory, link: ' },
      },
    ],
    vconcat: [
      {
        title: 'Bytes by round',
        width: WIDTH,
        height: 220,
        name: 'rounds-plot',
        data: { name: 'rounds' },
        transform: [chosen],
        mark: 'bar',
        encoding: {
          x: { field: 'round', type: 'ordinal', title: 'round (the last: stopped, or post-copy)' },
          xOffset: { field: 'strategy', sort: STRATEGIES },
          y: { field: 'megabytes', type: 'quantitative', title: 'on the wire, MB' },
          color: colour,
          opacity: {
            field: 'kind',
            type: 'ordinal',
            scale: { domain: ['live', 'stopped', 'post-copy'], range: [1, 0.5, 0.65] },
          },
          tooltip: ['strategy', 'round', 'kind', 'megabytes'].map((field) => ({ field })),
        },
      },
      course('Remaining bytes over time', 'remaining', 'still to send, MB', chosen),
      course('Faults over time', 'faults', 'faults so far', chosen),
    ],
  };
}

function course(title: string, field: string, axis: string, chosen: object): object {
  return {
    title,
    width: WIDTH,
    height: 220,
    name: `${field}-plot`,
    data: { name: 'series' },
    transform: [chosen],
    mark: { type: 'line', interpolate: 'linear' },
    encoding: {
      x: { field: 'sec', type: 'quantitative', title: 'time, s' },
      y: { field, type: 'quantitative', title: axis, axis: { format: ',d', tickMinStep: 1 } },
      color: colour,
      order: { field: 'sec' },
    },
  };
}
