// Moves guests between the installed QEMU and another, both ways, and from the other to itself: the tests of
// test/migrate in each of these settings, and those of the hypervisor package against the other.
//
//     node scripts/versions.mjs /path/to/qemu-system-x86_64 [test/migrate/...]
//
// Prints a table and ends with 1 where a test failed. test/rig/versions.ts reads the variables.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { relative } from 'node:path';

const INSTALLED = 'qemu-system-x86_64';
const RESULTS = '.cache/test';
const UNIT = 'packages/hypervisor/test/qemu';

const [other, ...chosen] = process.argv.slice(2);
if (other === undefined) {
  console.error('make versions QEMU=/path/to/qemu-system-x86_64 [TEST="test/migrate/..."]');
  process.exit(2);
}

const version = (binary) => {
  const { stdout, error } = spawnSync(binary, ['--version'], { encoding: 'utf8' });
  const found = /version (\d+\.\d+\.\d+)/.exec(stdout ?? '')?.[1];
  if (found !== undefined) return found;
  console.error(`${binary} does not run: ${error?.message ?? 'it tells no version'}`);
  process.exit(2);
};
const own = version(INSTALLED);
const its = version(other);

mkdirSync(RESULTS, { recursive: true });

/** What became of each file's tests: `{ passed, failed: [names] }` by its path. */
function run(name, project, tests, env) {
  const file = `${RESULTS}/versions.json`;
  rmSync(file, { force: true });
  console.log(`== ${name}`);
  const { status } = spawnSync(
    'node_modules/.bin/vitest',
    [
      ...['run', '--project', project, ...tests, '--retry', '0'],
      ...['--reporter', 'verbose', '--reporter', 'json', `--outputFile.json=${file}`],
    ],
    { stdio: 'inherit', env: { ...process.env, ...env } },
  );
  const { testResults } = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { testResults: [] };
  const files = new Map();
  for (const { name: path, status: outcome, assertionResults } of testResults) {
    const failed = assertionResults.filter((test) => test.status === 'failed').map((test) => test.fullName);
    // A file that cannot be loaded has no tests.
    if (outcome === 'failed' && failed.length === 0) failed.push('the file itself');
    const passed = assertionResults.filter((test) => test.status === 'passed').length;
    files.set(relative('.', path), { passed, failed });
  }
  const failures = [...files.values()].flatMap(({ failed }) => failed);
  if (status !== 0 && failures.length === 0) files.set('(outside a test)', { passed: 0, failed: [name] });
  return { name, files };
}

const moves = chosen.length > 0 ? chosen : ['test/migrate'];
const settings = [
  [other, other, `${its} → ${its}`],
  [INSTALLED, other, `${own} → ${its}`],
  [other, INSTALLED, `${its} → ${own}`],
].map(([a, b, name]) => run(name, 'e2e', moves, { VMFERRY_QEMU_A: a, VMFERRY_QEMU_B: b }));
if (chosen.length === 0) settings.push(run(`${its} alone`, 'unit', [UNIT], { VMFERRY_QEMU_A: other }));

const paths = [...new Set(settings.flatMap(({ files }) => [...files.keys()]))].sort();
const cell = ({ files }, path) => {
  const found = files.get(path);
  if (found === undefined) return '-';
  return found.failed.length === 0
    ? `${found.passed} passed`
    : `${found.passed} passed, ${found.failed.length} failed`;
};
const rows = [
  ['', ...settings.map(({ name }) => name)],
  ...paths.map((path) => [path, ...settings.map((setting) => cell(setting, path))]),
];
const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
console.log();
for (const row of rows)
  console.log(
    row
      .map((text, column) => text.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );

const failures = settings.flatMap(({ name, files }) =>
  [...files].flatMap(([path, { failed }]) => failed.map((test) => `failed, ${name}: ${path}: ${test}`)),
);
for (const line of failures) console.log(line);
// Nothing that ran is nothing that is known.
process.exitCode = failures.length === 0 && settings.every(({ files }) => files.size > 0) ? 0 : 1;
