import { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { isLibvirtError, LibvirtError } from '@vmferry/native/libvirt/errors';
import { libraryVersion } from '@vmferry/native/libvirt/library';
import { expect, test, vi } from 'vitest';
import { connect, silentDaemon, testUri } from './support.ts';

test('a connection tells about its host', async () => {
  const { host } = await connect('test:///default');
  expect(await host.driver()).toBe('TEST');
  expect(await host.uri()).toBe('test:///default');
  expect(await host.hostname()).not.toBe('');
  expect(await host.isSecure()).toBe(true);
  expect(await host.isEncrypted()).toBe(false);
  expect(await host.daemonVersion()).toBe(libraryVersion());
  expect(await host.hypervisorVersion()).toBeGreaterThan(0);
  expect(await host.maxVcpus()).toBe(32);
  expect(await host.nodeInfo()).toEqual({
    model: 'i686',
    memoryKib: 3_145_728n,
    cpus: 16,
    mhz: 1400,
    numaNodes: 2,
    socketsPerNode: 2,
    coresPerSocket: 2,
    threadsPerCore: 2,
  });
  expect(await host.freeMemory()).toBeGreaterThan(0n);
  expect(await host.capabilities()).toContain('<arch>i686</arch>');
  expect(await host.cpuModels('x86_64')).toContain('qemu64');
  expect(await host.networks()).toEqual([
    { name: 'default', uuid: expect.stringMatching(/^[0-9a-f-]{36}$/), bridge: 'virbr0', active: true },
  ]);
});

test('what a driver does not have is an error with libvirt’s code, domain, level and message', async () => {
  const { host } = await connect();
  const error = await host.memoryStats().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(LibvirtError);
  expect(error).toMatchObject({
    name: 'LibvirtError',
    code: 'VIR_ERR_NO_SUPPORT',
    codeNumber: 3,
    domain: 'VIR_FROM_DOMAIN',
    level: 'VIR_ERR_ERROR',
    levelNumber: 2,
    call: 'virNodeGetMemoryStats',
    message: expect.stringContaining('this function is not supported'),
  });
  expect(isLibvirtError(error, 'VIR_ERR_NO_SUPPORT')).toBe(true);
  expect(isLibvirtError(error, 'VIR_ERR_NO_DOMAIN')).toBe(false);
});

test('errors of calls that fail at the same time do not get mixed up', async () => {
  const connection = await connect();
  const names = Array.from({ length: 200 }, (_, i) => `nobody-${i}`);
  const results = await Promise.allSettled([
    ...names.map((name) => connection.domainByName(name)),
    ...names.map(() => connection.define('<domain/>')),
  ]);
  results.forEach((result, i) => {
    const error = result.status === 'rejected' ? (result.reason as LibvirtError) : undefined;
    if (i < names.length) expect(error).toMatchObject({ code: 'VIR_ERR_NO_DOMAIN' });
    else expect(error).toMatchObject({ call: 'virDomainDefineXMLFlags' });
  });
});

test('a URI that leads nowhere is refused with the reason', async () => {
  await expect(connect('test:///nonexistent/node.xml')).rejects.toMatchObject({
    code: 'VIR_ERR_XML_ERROR',
    call: 'virConnectOpenAuth',
  });
  await expect(connect('nonsense:///x')).rejects.toBeInstanceOf(LibvirtError);
  await expect(connect('qemu+unix:///system?socket=/nonexistent/socket')).rejects.toMatchObject({
    code: 'VIR_ERR_SYSTEM_ERROR',
    domain: 'VIR_FROM_RPC',
    message: expect.stringContaining('No such file or directory'),
  });
});

test('a read-only connection only reads', async () => {
  const connection = await connect(testUri(), { readOnly: true });
  const domain = await connection.domainByName('one');
  expect((await domain.state()).state).toBe('running');
  await expect(domain.destroy()).rejects.toMatchObject({ code: 'VIR_ERR_OPERATION_DENIED' });
});

test('credentials are asked for, and the right ones let in', async () => {
  const uri = testUri({ user: 'astro', password: 'naut' });
  const answer = vi.fn(async (requests: readonly { type: string }[]) => {
    await new Promise((resolve) => setImmediate(resolve));
    return requests.map(({ type }) => (type === 'auth-name' ? 'astro' : 'naut'));
  });
  const connection = await connect(uri, { auth: { answer } });
  expect((await connection.domains()).map(({ name }) => name)).toEqual(['one']);
  expect(answer.mock.calls.flatMap(([requests]) => requests.map(({ type }) => type))).toEqual([
    'auth-name',
    'passphrase',
  ]);
  expect(answer.mock.calls[0]?.[0][0]).toMatchObject({ prompt: expect.any(String), suggestion: '' });
});

test('wrong credentials, none, and those that fail to come are refused', async () => {
  const uri = testUri({ user: 'astro', password: 'naut' });
  await expect(connect(uri)).rejects.toMatchObject({ domain: expect.stringMatching(/^VIR_FROM_/) });
  await expect(connect(uri, { auth: { answer: (r) => r.map(() => 'wrong') } })).rejects.toMatchObject({
    code: 'VIR_ERR_AUTH_FAILED',
  });
  await expect(connect(uri, { auth: { answer: () => undefined } })).rejects.toBeInstanceOf(LibvirtError);
  const tooMany = { answer: () => ['astro', 'naut', 'more'] };
  await expect(connect(uri, { auth: tooMany })).rejects.toMatchObject({ code: 'E_NATIVE_BOUNDS' });
  const failing = { answer: () => Promise.reject(new Error('the vault is shut')) };
  await expect(connect(uri, { auth: failing })).rejects.toThrow('the vault is shut');
});

test('giving up while credentials are asked for ends the question', async () => {
  const uri = testUri({ user: 'astro', password: 'naut' });
  const giveUp = new AbortController();
  let asked = () => {};
  const question = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const answer = () => {
    asked();
    return new Promise<undefined>(() => {});
  };
  const opening = LibvirtConnection.open(uri, { auth: { answer }, signal: giveUp.signal });
  opening.catch(() => {});
  await question;
  giveUp.abort(new Error('enough'));
  await expect(opening).rejects.toThrow('enough');
});

test('a daemon that says nothing holds up nobody but who waits for it', async () => {
  const daemon = await silentDaemon();
  const waiting = Array.from({ length: 20 }, () => new AbortController());
  const silent = waiting.map(({ signal }) => LibvirtConnection.open(daemon.uri, { signal }));
  const turns = vi.fn();
  const ticking = setInterval(turns, 1);
  const connection = await connect();
  for (let i = 0; i < 50; i++) await connection.domainByName('one');
  clearInterval(ticking);
  expect(turns).toHaveBeenCalled();
  for (const giveUp of waiting) giveUp.abort(new Error('waited long enough'));
  for (const result of await Promise.allSettled(silent)) {
    expect(result).toMatchObject({ status: 'rejected', reason: { message: 'waited long enough' } });
  }
});

test('a daemon that goes away while it is connected to is an error', async () => {
  const daemon = await silentDaemon();
  const opening = LibvirtConnection.open(daemon.uri);
  opening.catch(() => {});
  await new Promise((resolve) => daemon.server.once('connection', resolve));
  daemon.end();
  await expect(opening).rejects.toBeInstanceOf(LibvirtError);
});

test('closing frees all that hangs on it, says so once, and ends every use', async () => {
  const connection = await connect();
  const domains = await connection.domains();
  const subscription = await connection.subscribe('lifecycle', () => {});
  const onClose = vi.fn();
  connection.on('close', onClose);
  expect(connection.closed).toBe(false);
  expect(await connection.close()).toBe(0);
  expect(await connection.close()).toBe(0);
  expect(connection.closed).toBe(true);
  expect(onClose.mock.calls).toEqual([['client']]);
  const closed = { code: 'E_NATIVE_CLOSED' };
  await expect(connection.domains()).rejects.toMatchObject(closed);
  await expect(connection.subscribe('lifecycle', () => {})).rejects.toMatchObject(closed);
  await expect(domains[0]!.state()).rejects.toMatchObject(closed);
  domains[0]!.free();
  await subscription.close();
});

test('calls that are under way when it is closed end as they would', async () => {
  const connection = await connect();
  const calls = Promise.allSettled(Array.from({ length: 100 }, () => connection.domainByName('one')));
  await connection.close();
  for (const result of await calls) {
    if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'E_NATIVE_CLOSED' });
  }
});

test('a call that was given up rejects with the reason, and one given up before is not made', async () => {
  const connection = await connect();
  const domain = await connection.domainByName('one');
  const reason = new Error('no longer');
  await expect(domain.destroy([], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect((await domain.state()).state).toBe('running');
  const giveUp = new AbortController();
  const destroying = domain.destroy([], { signal: giveUp.signal });
  giveUp.abort(reason);
  await expect(destroying).rejects.toBe(reason);
});

test('bad options are refused before anything is opened', async () => {
  const bounds = { code: 'E_NATIVE_BOUNDS' };
  const uri = 'test:///default';
  for (const keepAlive of [
    { intervalSeconds: 0, count: 1 },
    { intervalSeconds: 1.5, count: 1 },
    { intervalSeconds: 1, count: 2 ** 31 },
  ]) {
    await expect(LibvirtConnection.open(uri, { keepAlive })).rejects.toMatchObject(bounds);
  }
  await expect(LibvirtConnection.open('test:///\0')).rejects.toMatchObject(bounds);
  await expect(LibvirtConnection.open(7 as never)).rejects.toMatchObject(bounds);
  const auth = { types: ['fingerprint' as never], answer: () => undefined };
  await expect(LibvirtConnection.open(uri, { auth })).rejects.toMatchObject(bounds);
});
