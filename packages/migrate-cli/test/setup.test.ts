/** `scripts/setup` where packages cannot be had; apt-get, dpkg-query and id are programs of the test's. */
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const SETUP = fileURLToPath(new URL('../../../scripts/setup', import.meta.url));
let programs: string;

beforeEach(async () => {
  programs = await mkdtemp(join(tmpdir(), 'vmferry-setup-'));
  await program('id', 'echo 0');
  await program('dpkg-query', 'case $* in *"$ABSENT"*) exit 1 ;; *) echo installed ;; esac');
  await program('apt-get', 'echo "unable to locate a package" >&2; exit 100');
});
afterEach(() => rm(programs, { recursive: true, force: true }));

async function program(name: string, script: string): Promise<void> {
  await writeFile(join(programs, name), `#!/bin/sh\n${script}\n`);
  await chmod(join(programs, name), 0o755);
}

/** As root, where this package is not installed. */
function setup(need: string, absent: string): Promise<{ readonly status: number; readonly said: string }> {
  const env = { ...process.env, PATH: `${programs}:${process.env['PATH']}`, ABSENT: absent };
  return new Promise((resolve) => {
    execFile(SETUP, [need], { env }, (error, _stdout, stderr) => {
      resolve({ status: Number(error?.code ?? 0), said: stderr });
    });
  });
}

describe('scripts/setup, where no package can be installed', () => {
  it('goes on for the demo without what only real guests need, and says so', async () => {
    const { status, said } = await setup('demo', 'qemu-system-x86');
    expect(said).toMatch(/could not install qemu-system-x86\n.*going on with simulated guests/s);
    expect(status).toBe(0);
  });

  it('fails for the demo where vmferry cannot be built, and for the tests without a guest', async () => {
    expect(await setup('demo', 'liblz4-dev')).toMatchObject({ status: 1 });
    const tests = await setup('test', 'qemu-system-x86');
    expect(tests.status).toBe(1);
    expect(tests.said).toMatch(/could not install qemu-system-x86/);
  });
});
