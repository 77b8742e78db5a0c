import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { probeKvm } from '../../src/qemu/probe-kvm.ts';

let dir: string;
let device: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  device = join(dir, 'kvm');
  await writeFile(device, '');
});
afterEach(() => rm(dir, { recursive: true }));

async function fakeQemu(script: string): Promise<string> {
  const binary = join(dir, 'qemu');
  await writeFile(binary, `#!/bin/sh\n${script}\n`);
  await chmod(binary, 0o755);
  return binary;
}

test('the guest of the probe boots where an accelerator works', async () => {
  expect(await probeKvm({ device, accelerator: 'tcg', timeoutMs: 15_000 })).toEqual({ usable: true });
});

test('a host without the device has no KVM', async () => {
  const probe = await probeKvm({ device: join(dir, 'nothing') });
  expect(probe).toEqual({ usable: false, why: `there is no ${join(dir, 'nothing')}` });
});

test('a device on which no guest gets anywhere is not KVM, and is not waited for', async () => {
  const binary = await fakeQemu('exec sleep 60');
  const before = performance.now();
  const probe = await probeKvm({ device, binary, timeoutMs: 100 });
  expect(probe).toEqual({
    usable: false,
    why: 'a guest of one sector did not boot on it within 100 ms',
  });
  expect(performance.now() - before).toBeLessThan(10_000);
});

test('what QEMU says when it ends is the reason', async () => {
  const binary = await fakeQemu('echo "failed to initialize kvm: Permission denied" >&2; exit 1');
  const probe = await probeKvm({ device, binary });
  expect(probe).toEqual({ usable: false, why: 'failed to initialize kvm: Permission denied' });
});

test('a QEMU that ends for another reason, or is not there, proves nothing', async () => {
  expect(await probeKvm({ device, binary: await fakeQemu('exit 0') })).toEqual({
    usable: false,
    why: 'QEMU ended with 0',
  });
  const missing = await probeKvm({ device, binary: join(dir, 'no-qemu') });
  expect(missing.usable).toBe(false);
});
