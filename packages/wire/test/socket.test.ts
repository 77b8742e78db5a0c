import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { lstatSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import type { WireError } from '../src/errors.ts';
import { DEFAULT_FRAME_LIMITS, HEADER_BYTES } from '../src/frame.ts';
import type { FrameSocket } from '../src/frame-socket.ts';
import { Link } from '../src/link.ts';
import { Listener, type ListenerOptions, type Peer } from '../src/listener.ts';
import {
  connect,
  connectData,
  DATA_PATH,
  MIGRATION_PATH,
  OPERATOR_PATH,
  type TlsMaterial,
} from '../src/socket.ts';
import { deferred, Inbox, pagesFrame, wireErrorFrom } from './support.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

interface Guest {
  readonly socket: WebSocket;
  readonly peer: Peer;
}

async function listen(url: string, options: Partial<ListenerOptions> = {}) {
  const guests: Guest[] = [];
  const refused: WireError[] = [];
  const listener = await Listener.listen(url, {
    handlers: { [MIGRATION_PATH]: (socket, peer) => guests.push({ socket, peer }) },
    onRefused: (error) => refused.push(error),
    ...options,
  });
  cleanups.push(() => listener.close());
  return { listener, url: listener.url, guests, refused };
}

describe('a connection', () => {
  test('carries frames between two agents on loopback', async () => {
    const inbox = new Inbox();
    const { url } = await listen('ws://127.0.0.1:0', {
      handlers: { [MIGRATION_PATH]: (socket) => new Link(socket, { name: 'far', onFrame: inbox.onFrame }) },
    });
    expect(url).toMatch(/^ws:\/\/127\.0\.0\.1:\d+$/);
    const link = new Link(await connect(url, { path: MIGRATION_PATH }), { name: 'near', onFrame: () => {} });
    await link.send(pagesFrame(1000));
    await inbox.has(1);
    expect(inbox.frames[0]?.payloadBytes).toBe(1000);
  });

  test('over IPv6 and over a Unix socket works alike', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'vmferry-wire-'));
    cleanups.push(() => rmSync(dir, { recursive: true }));
    for (const address of ['ws://[::1]:0', `ws+unix:${dir}/agent.sock`]) {
      const { url, guests } = await listen(address);
      const socket = await connect(url, { path: MIGRATION_PATH });
      socket.send('x');
      await once(guests[0]!.socket, 'message');
      expect(guests[0]?.peer.tls).toBe(false);
    }
  });

  test('is made without compression', async () => {
    const { url } = await listen('ws://127.0.0.1:0');
    const socket = await connect(url, { path: MIGRATION_PATH });
    expect(socket.extensions).toBe('');
  });

  test('sends frames with a mask of zeros, so that nothing has to be masked', async () => {
    const chunks: Buffer[] = [];
    const whole = deferred<Buffer>();
    const frameBytes = HEADER_BYTES + 70_000;
    const server = createServer((peer: Socket) => {
      let upgraded = false;
      peer.on('data', (chunk) => {
        if (!upgraded) {
          upgraded = true;
          const key = /sec-websocket-key: (.+)\r\n/i.exec(chunk.toString('latin1'))?.[1] ?? '';
          const accept = createHash('sha1')
            .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
            .digest('base64');
          peer.write(
            `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
          );
          return;
        }
        chunks.push(chunk);
        const all = Buffer.concat(chunks);
        if (all.length >= 14 + frameBytes) whole.resolve(all);
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(() => server.close());
    const socket = await connect(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, {
      path: MIGRATION_PATH,
    });
    cleanups.push(() => socket.terminate());
    const frame = pagesFrame(70_000);
    const before = Buffer.from(frame.buffer.subarray(HEADER_BYTES));
    void new Link(socket, { name: 'near', onFrame: () => {} }).send(frame);
    const sent = await whole.promise;
    // RFC 6455, section 5.2: final binary frame; masked, 64-bit length; length; mask; payload.
    expect([...sent.subarray(0, 2)]).toEqual([0x82, 0xff]);
    expect(Number(sent.readBigUInt64BE(2))).toBe(frameBytes);
    expect(sent.readUInt32BE(10)).toBe(0);
    expect(sent.subarray(14 + HEADER_BYTES, 14 + frameBytes).equals(before)).toBe(true);
    expect(frame.buffer.subarray(HEADER_BYTES)).toEqual(before);
  });

  test('is ended by a message that is larger than the limit', async () => {
    const { url, guests } = await listen('ws://127.0.0.1:0');
    const socket = await connect(url, { path: MIGRATION_PATH });
    const failed = once(guests[0]!.socket, 'error');
    socket.send(Buffer.alloc(DEFAULT_FRAME_LIMITS.maxFrameBytes + 1));
    const [code] = (await once(socket, 'close')) as [number];
    await failed;
    expect(code).toBe(1009);
  });

  test('that is refused, goes nowhere or meets no agent tells why', async () => {
    const { url } = await listen('ws://127.0.0.1:0');
    expect(await wireErrorFrom(connect(url, { path: OPERATOR_PATH }))).toMatchObject({
      code: 'E_CONNECT',
      message: `cannot connect to ${url}: what answers there is no vmferry agent, or refuses us (HTTP status 404)`,
    });
    const free = createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const { port } = free.address() as AddressInfo;
    free.close();
    await once(free, 'close');
    expect(await wireErrorFrom(connect(`ws://127.0.0.1:${port}`, { path: MIGRATION_PATH }))).toMatchObject({
      code: 'E_CONNECT',
      message: `cannot connect to ws://127.0.0.1:${port}: nothing listens there`,
      remedy: 'Start the agent there, or check the address and the port.',
    });
    const nowhere = await wireErrorFrom(connect('wss://vmferry.invalid:1', { path: MIGRATION_PATH }));
    expect(nowhere).toMatchObject({ code: 'E_CONNECT' });
    expect(nowhere.message).toContain("the host's name is not known");
    const unix = await wireErrorFrom(connect('ws+unix:/nowhere/agent.sock', { path: MIGRATION_PATH }));
    expect(unix.message).toContain('there is no such socket');
  });

  test('that an agent hangs up on says what may be the reason', async () => {
    const hangsUp = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(hangsUp, 'listening');
    cleanups.push(() => hangsUp.close());
    const url = `ws://127.0.0.1:${(hangsUp.address() as AddressInfo).port}`;
    expect(await wireErrorFrom(connect(url, { path: MIGRATION_PATH }))).toMatchObject({
      code: 'E_CONNECT',
      remedy: expect.stringMatching(/wss:.*LimitNOFILE/),
    });
  });

  test('to a server that never answers is given up', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    cleanups.push(() => silent.close());
    const url = `ws://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    expect(await wireErrorFrom(connect(url, { path: MIGRATION_PATH, timeoutMs: 50 }))).toMatchObject({
      code: 'E_CONNECT',
      message: `cannot connect to ${url}: it did not answer in time`,
    });
  });

  test.each([
    'http://a:1',
    'a:1',
    'ws://',
    'ws://a:1/path',
    'wss://user@a:1',
    'ws://a:1?x',
    'ws+unix:',
    'wss://a:99999',
  ])('to %s is refused: it is no URL of an agent', async (url) => {
    const error = await wireErrorFrom(connect(url, { path: MIGRATION_PATH }));
    expect(error.code).toBe('E_CONNECT');
    expect(error.remedy).toContain('wss://HOST:PORT');
  });
});

describe('plain text', () => {
  test('to another host is refused unless it is allowed', async () => {
    const refused = await wireErrorFrom(connect('ws://192.0.2.1:7000', { path: MIGRATION_PATH }));
    expect(refused).toMatchObject({ code: 'E_INSECURE' });
    expect(refused.remedy).toContain('--insecure');
    const allowed = await wireErrorFrom(
      connect('ws://192.0.2.1:7000', { path: MIGRATION_PATH, insecure: true, timeoutMs: 50 }),
    );
    expect(allowed.code).toBe('E_CONNECT');
  });

  test.each(['ws://0.0.0.0:0', 'ws://[::]:0', 'ws://127.0.0.1.example.com:0', 'ws://10.0.0.1:0'])(
    'on %s is refused',
    async (url) => {
      expect((await wireErrorFrom(listen(url))).code).toBe('E_INSECURE');
    },
  );

  test('on all addresses can be allowed', async () => {
    const { url } = await listen('ws://0.0.0.0:0', { insecure: true });
    const { port } = new URL(url);
    const socket = await connect(`ws://127.0.0.2:${port}`, { path: MIGRATION_PATH });
    expect(socket.readyState).toBe(WebSocket.OPEN);
  });
});

describe('a listener', () => {
  test('says that its address is taken', async () => {
    const { url } = await listen('ws://127.0.0.1:0');
    const error = await wireErrorFrom(listen(url));
    expect(error).toMatchObject({ code: 'E_CONNECT' });
    expect(error.message).toContain('something listens there already');
  });

  test.each([MIGRATION_PATH, DATA_PATH] as const)(
    'outlives a handler of %s that throws, and cuts the connection',
    async (path) => {
      let broken = true;
      const accept = (socket: FrameSocket) => {
        if (broken) throw new RangeError('a defect');
        new Link(socket, { name: 'far', onFrame: () => {} });
      };
      const { url, refused } = await listen('ws://127.0.0.1:0', { handlers: { [path]: accept } });
      const link = new Link(await connect(url, { path }), { name: 'near', onFrame: () => {} });
      expect((await link.closed).error).toMatchObject({ code: 'E_CLOSED' });
      expect(refused).toMatchObject([
        { code: 'E_CONNECT', message: `a connection to ${path} failed: a defect` },
      ]);
      broken = false;
      const socket = await connect(url, { path });
      expect(socket.readyState).toBe(WebSocket.OPEN);
      socket.terminate();
    },
  );

  describe('on a Unix socket', () => {
    let dir: string;
    beforeEach(() => {
      dir = mkdtempSync(join(tmpdir(), 'vmferry-listener-'));
    });
    afterEach(() => rmSync(dir, { recursive: true }));

    test('takes the place of one that was killed', async () => {
      const path = join(dir, 'agent.sock');
      const listens = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
      const [, signal] = await once(spawn(process.execPath, ['-e', listens]), 'exit');
      expect([signal, lstatSync(path).isSocket()]).toEqual(['SIGKILL', true]);
      const { url } = await listen(`ws+unix:${path}`);
      const socket = await connect(url, { path: MIGRATION_PATH });
      expect(socket.readyState).toBe(WebSocket.OPEN);
    });

    test('leaves one that listens, and a file, where they are', async () => {
      const taken = `ws+unix:${join(dir, 'agent.sock')}`;
      const { url } = await listen(taken);
      expect((await wireErrorFrom(listen(taken))).message).toContain('something listens there already');
      expect((await connect(url, { path: MIGRATION_PATH })).readyState).toBe(WebSocket.OPEN);
      const file = join(dir, 'file');
      writeFileSync(file, 'mine');
      expect((await wireErrorFrom(listen(`ws+unix:${file}`))).code).toBe('E_CONNECT');
      expect(readFileSync(file, 'utf8')).toBe('mine');
    });
  });

  test('tells a browser that it is no web server, and web pages that they are not welcome', async () => {
    const { url, refused, guests } = await listen('ws://127.0.0.1:0');
    const response = await fetch(url.replace('ws:', 'http:'));
    expect(response.status).toBe(426);
    const page = new WebSocket(`${url}${MIGRATION_PATH}`, { origin: 'https://evil.example' });
    const [error] = (await once(page, 'error')) as [Error];
    expect(error.message).toContain('403');
    expect(refused[0]?.message).toContain('403');
    expect(guests).toEqual([]);
  });

  test('ends its connections when it closes', async () => {
    const { url, listener } = await listen('ws://127.0.0.1:0');
    const link = new Link(await connect(url, { path: MIGRATION_PATH }), { name: 'near', onFrame: () => {} });
    await listener.close();
    expect((await link.closed).error?.message).toContain('the agent is shutting down');
    expect((await wireErrorFrom(connect(url, { path: MIGRATION_PATH }))).code).toBe('E_CONNECT');
  });

  test('closes although a peer does not', async () => {
    const { url, listener, guests } = await listen('ws://127.0.0.1:0');
    const socket = await connect(url, { path: MIGRATION_PATH });
    socket.pause();
    cleanups.push(() => socket.terminate());
    const ended = once(guests[0]!.socket, 'close');
    await listener.close();
    await ended;
  });
});

describe('TLS', () => {
  let dir: string;
  const read = (name: string) => readFileSync(join(dir, name));

  function openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
  }

  function makeCa(name: string): void {
    openssl(
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`],
    );
  }

  function makeCertificate(name: string, ca: string, san: string, expired = false): void {
    openssl(
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`],
    );
    writeFileSync(join(dir, `${name}.ext`), `subjectAltName=${san}\n`);
    const validity = expired
      ? ['-startdate', '20200101000000Z', '-enddate', '20200102000000Z']
      : ['-startdate', '20200101000000Z', '-enddate', '20991231000000Z'];
    openssl(
      ...['ca', '-batch', '-config', 'ca.cnf', '-cert', `${ca}.pem`, '-keyfile', `${ca}.key`],
      ...['-in', `${name}.csr`, '-out', `${name}.pem`, '-extfile', `${name}.ext`, '-notext', ...validity],
    );
  }

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'vmferry-tls-'));
    writeFileSync(join(dir, 'index.txt'), '');
    writeFileSync(
      join(dir, 'ca.cnf'),
      [
        '[ca]',
        'default_ca=own',
        '[own]',
        'database=index.txt',
        'new_certs_dir=.',
        'rand_serial=yes',
        'unique_subject=no',
        'default_md=sha256',
        'policy=any',
        '[any]',
        'commonName=supplied',
        '',
      ].join('\n'),
    );
    makeCa('ca');
    makeCa('other-ca');
    makeCertificate('dest', 'ca', 'IP:127.0.0.1,DNS:localhost');
    makeCertificate('elsewhere', 'ca', 'DNS:elsewhere.example');
    makeCertificate('old', 'ca', 'IP:127.0.0.1', true);
    makeCertificate('source', 'ca', 'DNS:source.example');
    makeCertificate('stranger', 'other-ca', 'DNS:source.example');
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  const material = (name: string, ca?: string): TlsMaterial => ({
    cert: read(`${name}.pem`),
    key: read(`${name}.key`),
    ...(ca === undefined ? {} : { ca: read(`${ca}.pem`) }),
  });

  /** Connects and waits until the agent has really accepted, which with TLS 1.3 is after the client is through. */
  async function reach(url: string, tls: TlsMaterial): Promise<WebSocket> {
    const socket = await connect(url, { path: MIGRATION_PATH, tls });
    cleanups.push(() => socket.terminate());
    return socket;
  }

  test('with certificates on both sides carries frames, and the agent knows who it is', async () => {
    const inbox = new Inbox();
    const peers: Peer[] = [];
    const { url } = await listen('wss://127.0.0.1:0', {
      tls: material('dest', 'ca'),
      handlers: {
        [MIGRATION_PATH]: (socket, peer) => {
          peers.push(peer);
          new Link(socket, { name: 'far', onFrame: inbox.onFrame });
        },
      },
    });
    expect(url).toMatch(/^wss:/);
    const link = new Link(await reach(url, material('source', 'ca')), { name: 'near', onFrame: () => {} });
    await link.send(pagesFrame(300_000));
    await inbox.has(1);
    expect(peers).toEqual([
      { path: MIGRATION_PATH, address: '127.0.0.1', tls: true, certificateName: 'source' },
    ]);
  });

  test('keeps data streams where they are encrypted', async () => {
    const inbox = new Inbox();
    const streams: FrameSocket[] = [];
    const { url } = await listen('wss://127.0.0.1:0', {
      tls: material('dest'),
      handlers: {
        [DATA_PATH]: (socket) => {
          streams.push(socket);
          new Link(socket, { name: 'far', onFrame: inbox.onFrame });
        },
      },
    });
    const socket = await connectData(url, { tls: { ca: read('ca.pem') } });
    cleanups.push(() => socket.terminate());
    void new Link(socket, { name: 'near', onFrame: () => {} }).send(pagesFrame(300_000));
    await inbox.has(1);
    expect([socket, streams[0]]).toEqual([expect.any(WebSocket), expect.any(WebSocket)]);
  });

  test('without a CA on the agent lets everybody in who trusts the agent', async () => {
    const { url, guests } = await listen('wss://127.0.0.1:0', { tls: material('dest') });
    await reach(url, { ca: read('ca.pem') });
    expect(guests[0]?.peer).toEqual({ path: MIGRATION_PATH, address: '127.0.0.1', tls: true });
  });

  test('refuses an agent whose certificate comes from another CA', async () => {
    const { url } = await listen('wss://127.0.0.1:0', { tls: material('dest') });
    for (const tls of [{ ca: read('other-ca.pem') }, {}]) {
      const error = await wireErrorFrom(reach(url, tls));
      expect(error).toMatchObject({ code: 'E_TLS' });
      expect(error.message).toContain('was not signed by a CA that is known here');
    }
  });

  test('refuses an agent whose certificate has expired', async () => {
    const { url } = await listen('wss://127.0.0.1:0', { tls: material('old') });
    const error = await wireErrorFrom(reach(url, { ca: read('ca.pem') }));
    expect(error).toMatchObject({ code: 'E_TLS' });
    expect(error.message).toContain('has expired');
    expect(error.remedy).toContain('Renew');
  });

  test('refuses an agent whose certificate is for another host', async () => {
    const { url } = await listen('wss://127.0.0.1:0', { tls: material('elsewhere') });
    const error = await wireErrorFrom(reach(url, { ca: read('ca.pem') }));
    expect(error).toMatchObject({ code: 'E_TLS' });
    expect(error.message).toContain('is for another host');
  });

  test.each([
    ['none', 'demands a certificate'],
    ['stranger', 'certificate'],
    ['old', 'certificate'],
  ])('refuses a peer whose certificate is: %s', async (name, words) => {
    const { url, guests, refused } = await listen('wss://127.0.0.1:0', { tls: material('dest', 'ca') });
    const tls = name === 'none' ? { ca: read('ca.pem') } : material(name, 'ca');
    const error = await wireErrorFrom(reach(url, tls));
    expect(error.code).toBe('E_TLS');
    expect(error.message).toContain(words);
    expect(guests).toEqual([]);
    expect(refused[0]?.code).toBe('E_TLS');
  });

  test('and plain text do not meet', async () => {
    const secure = await listen('wss://127.0.0.1:0', { tls: material('dest') });
    const asPlain = await wireErrorFrom(connect(secure.url.replace('wss:', 'ws:'), { path: MIGRATION_PATH }));
    expect(asPlain.remedy).toContain('wss://');
    const open = await listen('ws://127.0.0.1:0');
    const asSecure = await wireErrorFrom(reach(open.url.replace('ws:', 'wss:'), { ca: read('ca.pem') }));
    expect(asSecure).toMatchObject({ code: 'E_TLS' });
    expect(asSecure.message).toContain('does not speak TLS');
  });

  test('needs a certificate and a key that belong together', async () => {
    expect((await wireErrorFrom(listen('wss://127.0.0.1:0'))).code).toBe('E_TLS');
    const mixed = { cert: read('dest.pem'), key: read('source.key') };
    expect((await wireErrorFrom(listen('wss://127.0.0.1:0', { tls: mixed }))).code).toBe('E_TLS');
    const garbage = { cert: Buffer.from('no PEM'), key: read('dest.key') };
    expect((await wireErrorFrom(listen('wss://127.0.0.1:0', { tls: garbage }))).code).toBe('E_TLS');
    const { url } = await listen('wss://127.0.0.1:0', { tls: material('dest') });
    expect((await wireErrorFrom(reach(url, { ...mixed, ca: read('ca.pem') }))).code).toBe('E_TLS');
  });
});
