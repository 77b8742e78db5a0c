import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { GuestError } from '@vmferry/engine/errors';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from '../../../src/qemu/qmp/client.ts';
import { asGuestError, QmpError } from '../../../src/qemu/qmp/errors.ts';
import { FakeMonitor } from '../support/qmp/fake-monitor.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmferry-connect-'));
});
afterEach(() => rm(folder, { recursive: true }));

const refusal = async (path: string, options = {}): Promise<QmpError> => {
  const error = await QmpClient.connect(path, options).then(
    () => 'it connected',
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(QmpError);
  return error as QmpError;
};

/** Against a monitor that begins with `greeting`. */
const refusalOf = async (
  greeting: string | null,
  options = {},
  act = (_: FakeMonitor): void => {},
): Promise<QmpError> => {
  const monitor = await FakeMonitor.start(greeting);
  try {
    const refused = refusal(monitor.path, options);
    act(monitor);
    return await refused;
  } finally {
    await monitor.stop();
  }
};

describe('connecting to a monitor', () => {
  it('says that there is no socket', async () => {
    expect(await refusal(join(folder, 'none'))).toMatchObject({ code: 'E_QMP_NOT_FOUND' });
  });

  it('tells a file from a socket that nobody serves', async () => {
    const file = join(folder, 'file');
    await writeFile(file, '');
    expect(await refusal(file)).toMatchObject({ code: 'E_QMP_NOT_A_SOCKET' });
    expect(await refusal(folder)).toMatchObject({ code: 'E_QMP_NOT_A_SOCKET' });
    expect(await refusal(join(file, 'below'))).toMatchObject({ code: 'E_QMP_NOT_A_SOCKET' });
    const left = join(folder, 'left.sock');
    // Ends without tidying up, as a QEMU that was killed does.
    const leave = `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`;
    await promisify(execFile)(process.execPath, ['-e', leave, left]).catch(() => {});
    expect(await refusal(left)).toMatchObject({ code: 'E_QMP_REFUSED' });
  });

  it('says that it has no permission', async () => {
    const monitor = await FakeMonitor.start();
    // Root may open everything: the attempt is an ordinary user's.
    const setEffectiveUser = process.seteuid!.bind(process);
    setEffectiveUser(65534);
    try {
      expect(await refusal(monitor.path)).toMatchObject({ code: 'E_QMP_ACCESS' });
    } finally {
      setEffectiveUser(0);
      await monitor.stop();
    }
  });

  it('refuses a path that no socket can have', async () => {
    expect(await refusal(join(folder, 'x'.repeat(200)))).toMatchObject({ code: 'E_QMP_CONNECT' });
  });

  it('says that a monitor without a greeting is probably taken', async () => {
    const error = await refusalOf(null, { greetingTimeoutMs: 50 });
    expect(error.code).toBe('E_QMP_TAKEN');
    expect(error.message).toBe(
      'no greeting within 50 ms: another client probably holds this monitor; give QEMU a second -qmp socket',
    );
  });

  it.each([
    [
      'the human monitor',
      "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ",
      'human monitor',
    ],
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n', 'does not speak QMP'],
    ['JSON that is no greeting', '{"QMP":{}}\n', 'does not speak QMP'],
    ['a line without an end', 'login: ', 'no greeting came'],
  ])('tells %s from QMP', async (_, greeting, words) => {
    const error = await refusalOf(greeting, { greetingTimeoutMs: 100 });
    expect(error.code).toBe('E_QMP_NOT_QMP');
    expect(error.message).toContain(words);
  });

  it('says that QEMU went away before it greeted', async () => {
    const error = await refusalOf(null, {}, (monitor) => {
      const end = (): unknown => (monitor.socket ? monitor.socket.destroy() : setImmediate(end));
      end();
    });
    expect(error).toMatchObject({
      code: 'E_QMP_CLOSED',
      message: expect.stringContaining('before it greeted'),
    });
  });

  it('works with a monitor that has no out-of-band commands', async () => {
    const version = { qemu: { major: 6, minor: 0, micro: 0 }, package: '' };
    const monitor = await FakeMonitor.start(`${JSON.stringify({ QMP: { version, capabilities: [] } })}\n`);
    const client = await QmpClient.connect(monitor.path);
    monitor.answer({ ask: () => 'ok' });
    expect(client.oob).toBe(false);
    expect(await client.execute('ask', {}, { oob: true })).toBe('ok');
    expect(monitor.requests[0]!.arguments).toBeUndefined();
    expect(monitor.requests[1]!.execute).toBe('ask');
    await client.close();
    await monitor.stop();
  });
});

describe('a fault of the monitor', () => {
  it('becomes a fault of the guest with a remedy, and other errors stay what they are', () => {
    const error = asGuestError(new QmpError('E_QMP_TAKEN', 'no greeting'));
    expect(error).toBeInstanceOf(GuestError);
    expect(error).toMatchObject({
      code: 'E_GUEST_UNREACHABLE',
      remedy: expect.stringContaining('second -qmp'),
    });
    const other = new Error('other');
    expect(asGuestError(other)).toBe(other);
  });
});
