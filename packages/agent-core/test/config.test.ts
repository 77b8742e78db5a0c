import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultLimits, defaultStateDir, loadAgentFile, loadToken, parseAgentFile } from '../src/config.ts';
import { libvirtPolicy } from '../src/libvirt-config.ts';

const parse = (text: string) => parseAgentFile(text, '/etc/vmferry/dest.yaml', 'dest');
const faultOf = (text: string): string => {
  try {
    parse(text);
  } catch (error) {
    expect(error).toMatchObject({ name: 'MigrationError', code: 'E_CONFIG', side: 'dest' });
    return (error as Error).message;
  }
  throw new Error('it was accepted');
};

describe('the configuration file', () => {
  it('has a default for everything', () => {
    expect(parse('')).toEqual({
      insecure: false,
      guests: {},
      libvirt: libvirtPolicy(),
      simulate: [],
      rehearse: true,
      start: [],
      logLevel: 'info',
      ...defaultLimits(),
    });
    expect(defaultLimits().bufferBytes).toBe(64 * 1024 * 1024);
  });

  it('takes the libvirt of its host, and sockets by absolute paths that leave room', () => {
    const libvirt = { uri: 'qemu+unix:///system?socket=/x', socketDir: '/run/v', socketDirHere: '/srv/v' };
    expect(parse(JSON.stringify({ libvirt })).libvirt).toMatchObject(libvirt);
    expect(() => parse('libvirt: { socketDir: run/v }')).toThrow(/libvirt\.socketDir: an absolute path/);
    expect(() => parse(`libvirt: { socketDir: /${'x'.repeat(80)} }`)).toThrow(/libvirt\.socketDir/);
    expect(() => parse('libvirt: { socket: /x }')).toThrow(/unknown key libvirt\.socket/);
  });

  it('takes YAML, with paths relative to itself', () => {
    const file = parse(`
listen: wss://0.0.0.0:4447
stateDir: state
tls: { cert: host.crt, key: host.key, ca: /etc/ssl/ca.crt }
tokenFile: token
allowGuests: ["qemu:/run/vm/*.sock"]
guests:
  web1:
    qmp: /run/vm/web1.sock
    command: [qemu-system-x86_64, -incoming, defer, -S]
logLevel: debug
`);
    expect(file).toMatchObject({
      listen: 'wss://0.0.0.0:4447',
      stateDir: '/etc/vmferry/state',
      tls: { cert: '/etc/vmferry/host.crt', key: '/etc/vmferry/host.key', ca: '/etc/ssl/ca.crt' },
      tokenFile: '/etc/vmferry/token',
      guests: {
        web1: { qmp: '/run/vm/web1.sock', command: ['qemu-system-x86_64', '-incoming', 'defer', '-S'] },
      },
      logLevel: 'debug',
    });
  });

  it('takes JSON', () => {
    expect(parse('{"listen": "ws://[::1]:1", "insecure": true}')).toMatchObject({ insecure: true });
  });

  it('names an unknown key by its path and line', () => {
    expect(faultOf('insecure: true\ntls:\n  cert: a\n  key: b\n  crt: c\nlisten2: x\n')).toBe(
      '/etc/vmferry/dest.yaml: unknown key tls.crt (line 5); unknown key listen2 (line 6)',
    );
    expect(faultOf('guests: { a: { qmp: /a, comand: [] } }')).toContain('unknown key guests.a.comand');
  });

  it.each([
    ['listen: 4446', /listen: .*\(line 1\)/],
    ['listen: http://x:1', /listen: .*no agent's URL/],
    ['listen: ws://me:pw@x:1', /more than a host and a port/],
    ['bufferBytes: 1', /bufferBytes: .*8388608/],
    ['bufferBytes: 64MiB', /bufferBytes: /],
    ['logLevel: loud', /logLevel: /],
    ['tls: { cert: a }', /tls: cert and key come together/],
    ['guests: { a: { qmp: /a, command: qemu } }', /guests\.a\.command: /],
    ['guests: { "../a": { qmp: /a } }', /guests\.\.\.\/a/],
    ['- a', /not a list of keys/],
    ['insecure: true\ninsecure: false', /Map keys must be unique/],
    ['tls: {', /dest\.yaml: /],
  ])('refuses %j', (text, message) => {
    expect(faultOf(text)).toMatch(message);
  });

  it('tells all faults at once', () => {
    expect(faultOf('bufferBytes: 1\nlogLevel: loud\nwhat: 1')).toMatch(/bufferBytes.*logLevel.*what/);
  });

  it('puts the state where the XDG specification and the FHS want it', () => {
    expect(defaultStateDir({}, 0)).toBe('/var/lib/vmferry');
    expect(defaultStateDir({ XDG_STATE_HOME: '/x' }, 1000)).toBe('/x/vmferry');
    expect(defaultStateDir({ XDG_STATE_HOME: 'x', HOME: '/home/me' }, 1000)).toBe(
      '/home/me/.local/state/vmferry',
    );
  });
});

describe('files named by the configuration', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vmferry-config-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('are named when they are missing', async () => {
    await expect(loadAgentFile(join(dir, 'none.yaml'), 'source')).rejects.toMatchObject({
      code: 'E_CONFIG',
      side: 'source',
      message: expect.stringMatching(/none\.yaml: there is no such file/),
    });
  });

  it('give the token without the line break', async () => {
    await writeFile(join(dir, 'token'), `${'ab'.repeat(32)}\n`);
    expect(await loadToken(join(dir, 'token'), 'cli')).toBe('ab'.repeat(32));
  });

  it.each(['', 'short', 'a'.repeat(20).concat(' b'), 'ü'.repeat(20)])(
    'refuse the token %j',
    async (token) => {
      await writeFile(join(dir, 'token'), token);
      await expect(loadToken(join(dir, 'token'), 'cli')).rejects.toMatchObject({ code: 'E_CONFIG' });
    },
  );
});
