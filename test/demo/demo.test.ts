import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../rig/process.ts';
import { repoRoot } from '../rig/repo.ts';

// It runs what `make build` built, as `make demo` does.
test('the demo moves its guest by every strategy and finds it whole', { timeout: 300_000 }, async () => {
  const dir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  try {
    const report = join(dir, 'report.html');
    const demo = [join(repoRoot(), 'vmferry'), 'demo', '--backend', 'qemu', '--report', report];
    const { stdout } = await run(demo, { timeoutMs: 280_000 });
    const rows = stdout.split('\n').filter((line) => /^(precopy|postcopy|hybrid|auto) /.test(line));
    expect(rows.map((row) => row.split(/ {2,}/)[1])).toEqual(Array(4).fill('completed'));
    expect(stdout).toMatch(
      /booted once .* without a gap\. The client's connections lived through every move/,
    );
    expect(await readFile(report, 'utf8')).toContain('<td>postcopy</td><td>completed</td>');
  } finally {
    await rm(dir, { recursive: true });
  }
});
