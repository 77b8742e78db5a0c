import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startGuest } from '../src/start-guest.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-start-guest-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const start = (command: readonly string[]) => startGuest('web1', join(directory, 'qmp.sock'), command);

const refusal = (why: RegExp) => ({
  code: 'E_GUEST_UNREACHABLE',
  message: expect.stringMatching(why),
  remedy: "correct the guest's command in the destination agent's configuration",
});

test('a command whose program is not there is said to be wrong', async () => {
  await expect(start([join(directory, 'no-qemu'), '-S'])).rejects.toMatchObject(
    refusal(/^the QEMU of web1 could not be started: spawn .*no-qemu ENOENT$/),
  );
});

test('a command whose program may not be run is said to be wrong', async () => {
  const file = join(directory, 'qemu');
  writeFileSync(file, 'no program', { mode: 0o600 });
  await expect(start([file])).rejects.toMatchObject(refusal(/spawn .*qemu EACCES$/));
});

test('a command that no process can be given is said to be wrong', async () => {
  await expect(start(['qemu\0'])).rejects.toMatchObject(refusal(/could not be started: .*null bytes/));
});

test('a program that ends at once is told with its status and its words', async () => {
  await expect(start(['/bin/sh', '-c', 'echo no such machine >&2; exit 3'])).rejects.toMatchObject(
    refusal(/it ended with status 3: no such machine$/),
  );
});

test('a program that is killed is told with its signal', async () => {
  await expect(start(['/bin/sh', '-c', 'kill -9 $$'])).rejects.toMatchObject(
    refusal(/it ended with signal SIGKILL/),
  );
});
