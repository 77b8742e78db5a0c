// All there is to run before a commit, in the order in which it fails fastest. Ends with "N passed, N failed"
// over both halves of the tests. In CI (CI set, as .ci/run does) a skipped test is a failure.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { relative } from 'node:path';

const BIN = 'node_modules/.bin';
const RESULTS = '.cache/test';

/** Gives the exit status; a signal counts as 1. */
function run(command, ...args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw error;
  return status ?? 1;
}

/**
 * As `run`; what has not ended by then is ended with all its processes, and that is a failure. A test's own time
 * limit does not help where its process no longer gets to its timers.
 */
function runWithin(minutes, env, command, ...args) {
  const child = spawn(command, args, { stdio: 'inherit', detached: true, env: { ...process.env, ...env } });
  // It leads a process group of its own, which a signal from the terminal does not reach.
  const end = (signal) => process.kill(-child.pid, signal);
  const pass = () => end('SIGTERM');
  process.once('SIGINT', pass).once('SIGTERM', pass);
  const timer = setTimeout(() => {
    console.log(`make test: ${command} ${args.join(' ')} did not end within ${minutes} minutes`);
    end('SIGKILL');
  }, minutes * 60_000);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status) => resolve(status ?? 1));
  }).finally(() => {
    clearTimeout(timer);
    process.off('SIGINT', pass).off('SIGTERM', pass);
  });
}

for (const [name, ...command] of [
  ['lint', `${BIN}/biome`, 'check', '--error-on-warnings', '.'],
  ['knip', `${BIN}/knip`],
  ['build and types', 'scripts/build'],
]) {
  console.log(`== ${name}`);
  if (run(...command) === 0) continue;
  console.log(`make test: ${name} failed, no test was run`);
  process.exit(1);
}

rmSync(RESULTS, { recursive: true, force: true });
mkdirSync(RESULTS, { recursive: true });
let passed = 0;
let failed = 0;
const told = [];
/** Their guests wait more than they compute, and nothing is asked of how fast they are: two files at a time. */
const UNHURRIED = ['test/libvirt', 'test/simulated'];
for (const { name, project, reporter, minutes, files, atOnce = 1 } of [
  { name: 'unit', project: 'unit', reporter: 'default', minutes: 15, files: [] },
  // Says each test as it ends, so that the one that hangs is the one after the last line.
  {
    ...{ name: 'e2e', project: 'e2e', reporter: 'verbose', minutes: 40 },
    files: UNHURRIED.flatMap((folder) => ['--exclude', `${folder}/**`]),
  },
  {
    ...{ name: 'e2e-unhurried', project: 'e2e', reporter: 'verbose', minutes: 40 },
    ...{ files: UNHURRIED, atOnce: 2 },
  },
]) {
  console.log(`== ${name}`);
  const file = `${RESULTS}/${name}.json`;
  const status = await runWithin(
    minutes,
    { VMFERRY_TEST_FILES: String(atOnce) },
    ...[`${BIN}/vitest`, 'run', '--project', project, ...files, '--retry', '0'],
    ...['--reporter', reporter, '--reporter', 'json', `--outputFile.json=${file}`],
  );
  const counts = count(file);
  told.push(...counts.told);
  passed += counts.passed;
  // What failed outside a test (an import, a hook, an unhandled rejection) has no test to be counted with.
  failed += status === 0 ? counts.failed : Math.max(1, counts.failed);
}
// Once more, where the end of a long output is all that is seen of it.
for (const failure of told) console.log(failure);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

function count(file) {
  if (!existsSync(file)) return { passed: 0, failed: 0, told: [] };
  const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(file, 'utf8'));
  const skipped = testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status !== 'passed' && status !== 'failed')
      .map(({ fullName }) => `${relative('.', name)}: ${fullName}`),
  );
  for (const test of skipped) console.log(`skipped: ${test}`);
  return {
    passed: numPassedTests,
    failed: numFailedTests + (process.env['CI'] ? skipped.length : 0),
    told: testResults.flatMap(failuresOf),
  };
}

/** Of a file of tests, with the beginning of each error's message and the place in the tests where it came from. */
function failuresOf({ name, message, assertionResults }) {
  const file = relative('.', name);
  const failures = assertionResults
    .filter(({ status }) => status === 'failed')
    .map(({ fullName, failureMessages, duration }) =>
      [`failed: ${file}: ${fullName} (${Math.round(duration ?? 0)} ms)`, ...failureMessages.map(brief)].join(
        '\n',
      ),
    );
  return message ? [`failed: ${file}\n${brief(message)}`, ...failures] : failures;
}

function brief(message) {
  // What vitest has in its JSON for a test or a hook that was given up.
  const told = message.replace('STACK_TRACE_ERROR', 'not ended within its time');
  const lines = told.split('\n').map((line) => line.trimEnd());
  const said = lines.filter((line) => !/^\s+at /.test(line)).slice(0, 8);
  const places = lines.filter((line) => /^\s+at .*\btest\//.test(line)).slice(0, 3);
  return [...said, ...places].map((line) => `    ${line}`).join('\n');
}
