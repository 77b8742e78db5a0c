import { EventEmitter } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { MigrationReport } from '@vmferry/engine/report/report';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type DemoOptions, runDemo } from '../src/demo/demo.ts';
import type { DemoMove, DemoResult, QemuDemo } from '../src/demo/qemu-demo.ts';
import { bareReport } from '../src/reports.ts';
import { start, vmferry } from './rig.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
});
afterEach(() => rm(dir, { recursive: true }));

const PROGRAMS = ['qemu-system-x86_64', 'cc', 'strip', 'cpio', 'xz', 'setpriv', 'ip', 'sysctl'];

/** A PATH with nothing but these. */
async function pathWith(programs: readonly string[]): Promise<string> {
  for (const program of programs) {
    await writeFile(join(dir, program), '');
    await chmod(join(dir, program), 0o755);
  }
  return dir;
}

function move(strategy: DemoMove['strategy'], report: Partial<MigrationReport>): DemoMove {
  return {
    strategy,
    from: 'host a',
    to: 'host b',
    report: { ...bareReport('completed', null, { guest: 'qemu:x', strategy }), ...report },
    client: { udpGapMs: 120.4, tcpGapMs: 240, survived: true },
  };
}

function result(...moves: DemoMove[]): DemoResult {
  return { setting: ['Guest: one of a test'], moves, verdict: { sound: true, words: 'It is whole.' } };
}

interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(
  demo: QemuDemo | undefined,
  options: Partial<DemoOptions> & { signals?: EventEmitter; path?: string } = {},
): Promise<Ran> {
  const { signals = new EventEmitter(), path, ...rest } = options;
  const texts = { stdout: '', stderr: '' };
  const output = (name: keyof typeof texts) =>
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        texts[name] += chunk.toString();
        done();
      },
    });
  const env = { PATH: path ?? (await pathWith(PROGRAMS)) };
  const io = { stdout: output('stdout'), stderr: output('stderr'), env, signals };
  const parts = {
    findQemu: async () => demo,
    simulate: async () => result(move('precopy', { guest: 'sim:demo' })),
  };
  const status = await runDemo({ backend: 'auto', io, ...rest }, parts);
  return { status, ...texts };
}

const demoOf = (outcome: DemoResult): QemuDemo => ({ runQemuDemo: async () => outcome });

const FIGURES = {
  downtimeMs: 54,
  downtimeUncertaintyMs: 0.6,
  totalMs: 2890,
  rawBytes: 274 * 2 ** 20,
  wireBytes: 106 * 2 ** 20,
};

test('the table has a row for each move, with the strategy that auto came to', async () => {
  const { status, stdout, stderr } = await run({
    runQemuDemo: async ({ say }) => {
      say('precopy: host a to host b');
      return result(move('precopy', FIGURES), {
        ...move('auto', {
          ...FIGURES,
          strategy: 'postcopy',
          faults: { count: 7, p50Ms: 1, p99Ms: 2, maxMs: 3 },
        }),
        client: null,
      });
    },
  });
  expect(status).toBe(0);
  expect(stderr).toBe('precopy: host a to host b\n');
  expect(stdout.split('\n')).toEqual([
    '',
    'strategy         outcome          downtime  client gap   total  guest memory  on the wire  faults',
    'precopy          completed  54 ms ± 0.6 ms      120 ms  2.89 s       274 MiB      106 MiB       0',
    'auto (postcopy)  completed  54 ms ± 0.6 ms           -  2.89 s       274 MiB      106 MiB       7',
    '',
    'Guest: one of a test',
    'It is whole.',
    '',
  ]);
});

test('a failed move, or a damaged guest, fails the demo', async () => {
  const failed = bareReport('failed', {
    code: 'E_LINK_LOST',
    message: 'The link is gone.',
    side: 'source',
    phase: 'precopy',
    guestRunsOn: 'source',
    remedy: 'Mend it.',
  });
  const ran = await run(demoOf(result(move('hybrid', { ...failed, strategy: 'hybrid' }))));
  expect(ran.status).toBe(1);
  expect(ran.stdout).toContain('hybrid: The link is gone. (E_LINK_LOST) Mend it.');
  const damaged = await run(
    demoOf({ ...result(move('precopy', {})), verdict: { sound: false, words: 'Page 7 is bad.' } }),
  );
  expect(damaged.status).toBe(1);
  expect(damaged.stdout).toContain('Page 7 is bad.');
});

test('a host that may not do post-copy does not fail the demo', async () => {
  const refused = bareReport('refused', {
    code: 'E_NO_USERFAULTFD',
    message: 'No post-copy here.',
    side: 'dest',
    phase: 'preflight',
    guestRunsOn: 'source',
    remedy: 'Run QEMU as root.',
  });
  const ran = await run(demoOf(result(move('precopy', {}), move('postcopy', refused))));
  expect(ran.status).toBe(0);
  expect(ran.stdout).toContain('Run QEMU as root.');
});

test('the report is one HTML file that loads nothing and takes no text for markup', async () => {
  const report = join(dir, 'report.html');
  const rounds = [
    {
      round: 1,
      pages: 512,
      rawBytes: 2 ** 21,
      wireBytes: 2 ** 20,
      durationMs: 10,
      dirtyBytesPerSec: 8e6,
      bandwidthBytesPerSec: 1e8,
    },
  ];
  await run(demoOf(result(move('precopy', { ...FIGURES, rounds, notes: ['<b>not bold</b>'] }))), { report });
  const page = await readFile(report, 'utf8');
  expect(page).toContain('<td>54 ms ± 0.6 ms</td>');
  expect(page).toContain('<td>1</td><td>512</td><td>2.00 MiB</td><td>1.00 MiB</td>');
  expect(page).toContain('&#60;b&#62;not bold&#60;/b&#62;');
  expect(page).not.toMatch(/https?:|src=|<script|<link|@import|url\(/);
});

test('a report that cannot be written is told as the fault of --report', async () => {
  const report = join(dir, 'nowhere', 'report.html');
  await expect(run(demoOf(result(move('precopy', {}))), { report })).rejects.toThrow(
    /--report: cannot write/,
  );
});

test('an interrupt takes the demo down', async () => {
  const signals = new EventEmitter();
  const ran = run(
    {
      runQemuDemo: ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(new Error('down')));
          signals.emit('SIGINT');
        }),
    },
    { signals },
  );
  expect(await ran).toMatchObject({ status: 130, stdout: '' });
});

test.each(['qemu', 'auto'] as const)(
  'without QEMU it says what to install, and by %s goes on accordingly',
  async (backend) => {
    const path = await pathWith(
      PROGRAMS.filter((program) => !['qemu-system-x86_64', 'cpio'].includes(program)),
    );
    const { status, stdout, stderr } = await run(demoOf(result()), { path, backend });
    expect(stderr).toContain('not here: qemu-system-x86_64, cpio.');
    expect(stderr).toContain('\n  apt-get install --no-install-recommends qemu-system-x86 cpio\n');
    if (backend === 'qemu') expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    else {
      expect(status).toBe(0);
      expect(stderr).toContain('Moving a simulated guest instead.');
      expect(stdout).toMatch(/^precopy +completed/m);
    }
  },
);

test('outside of a checkout it says where the guest is to be had', async () => {
  expect(await run(undefined, { backend: 'qemu' })).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('make demo'),
  });
  expect(await run(undefined)).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/make demo.*Moving a simulated guest instead/s),
  });
});

test('a simulated guest moves by every strategy, and is whole after each', async () => {
  const report = join(dir, 'report.html');
  const { status, stdout, stderr } = await vmferry('demo', '--backend', 'sim', '--report', report);
  expect(status, stderr).toBe(0);
  const rows = stdout.split('\n').filter((line) => /^(precopy|postcopy|hybrid|auto) /.test(line));
  expect(rows.map((row) => row.split(/ {2,}/)[1])).toEqual(Array(4).fill('completed'));
  expect(stdout).toMatch(
    /After every move all 65536 pages and the device state were what .* must have produced/,
  );
  expect(await readFile(report, 'utf8')).toContain('<td>postcopy</td><td>completed</td>');
}, 60_000);

test('an interrupt takes the simulated demo down', async () => {
  const running = start(['demo', '--backend', 'sim']);
  await expect.poll(() => running.stderr.text, { timeout: 10_000 }).toContain('precopy: host a to host b');
  running.signals.emit('SIGINT');
  expect(await running.status).toBe(130);
  expect(running.stdout.text).toBe('');
}, 30_000);
