import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadTls } from '../src/tls.ts';

let dir: string;
const at = (name: string) => join(dir, name);
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
const later = (days: number) => new Date(Date.now() + days * 86_400_000);

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-tls-'));
  for (const name of ['a', 'b']) {
    openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', `${name}.key`);
    openssl(
      'req',
      '-x509',
      '-new',
      '-key',
      `${name}.key`,
      '-days',
      '30',
      '-subj',
      `/CN=${name}`,
      '-out',
      `${name}.crt`,
    );
  }
  openssl('pkcs8', '-topk8', '-in', 'a.key', '-passout', 'pass:secret', '-out', 'locked.key');
  openssl('x509', '-in', 'a.crt', '-outform', 'der', '-out', 'a.der');
  const damaged = readFileSync(at('a.crt'), 'utf8').split('\n');
  damaged.splice(2, 1);
  writeFileSync(at('damaged.crt'), damaged.join('\n'));
  writeFileSync(at('chain.crt'), readFileSync(at('a.crt'), 'utf8') + readFileSync(at('b.crt'), 'utf8'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const load = (cert: string, key: string, ca?: string, now?: Date) =>
  loadTls({ cert: at(cert), key: at(key), ...(ca === undefined ? {} : { ca: at(ca) }) }, 'dest', now);

describe('loadTls', () => {
  it('gives the material of files that fit', async () => {
    const material = await load('chain.crt', 'a.key', 'b.crt');
    expect(material).toEqual({
      cert: readFileSync(at('chain.crt')),
      key: readFileSync(at('a.key')),
      ca: readFileSync(at('b.crt')),
    });
  });

  it.each([
    [
      'a missing certificate',
      ['none.crt', 'a.key'],
      'E_CONFIG',
      /certificate file .*none\.crt: there is no such file/,
    ],
    ['a missing key', ['a.crt', 'none.key'], 'E_CONFIG', /private key file .*none\.key/],
    ['a missing authority', ['a.crt', 'a.key', 'none.crt'], 'E_CONFIG', /authority file .*none\.crt/],
    ['a directory', ['.', 'a.key'], 'E_CONFIG', /it is a directory/],
    ['a certificate in DER', ['a.der', 'a.key'], 'E_TLS', /a\.der holds no certificate in PEM/],
    ['a key instead of a certificate', ['a.key', 'a.key'], 'E_TLS', /a\.key holds no certificate in PEM/],
    ['a certificate instead of a key', ['a.crt', 'a.crt'], 'E_TLS', /a\.crt holds no private key in PEM/],
    ['a damaged certificate', ['damaged.crt', 'a.key'], 'E_TLS', /damaged\.crt cannot be read/],
    ['a key with a passphrase', ['a.crt', 'locked.key'], 'E_TLS', /locked\.key is protected by a passphrase/],
    ['the key of another certificate', ['a.crt', 'b.key'], 'E_TLS', /b\.key does not belong .*CN=a/],
  ] as const)('names %s', async (_what, [cert, key, ca], code, message) => {
    await expect(load(cert, key, ca)).rejects.toMatchObject({
      name: 'MigrationError',
      code,
      side: 'dest',
      guestRunsOn: 'source',
      message: expect.stringMatching(message),
      remedy: expect.stringMatching(/\.$/),
    });
  });

  it('says when a certificate expired', async () => {
    await expect(load('a.crt', 'a.key', undefined, later(31))).rejects.toMatchObject({
      code: 'E_TLS',
      message: expect.stringMatching(/a\.crt \(CN=a\) expired on \d{4}-\d\d-\d\dT/),
    });
  });

  it('says from when on a certificate is valid', async () => {
    await expect(load('a.crt', 'a.key', undefined, later(-1))).rejects.toMatchObject({
      code: 'E_TLS',
      message: expect.stringContaining('is not valid before'),
    });
  });

  it('refuses authorities of which all have expired', async () => {
    await expect(loadTls({ ca: at('a.crt') }, 'cli', later(31))).rejects.toMatchObject({
      code: 'E_TLS',
      side: 'cli',
    });
  });

  it('takes authorities alone, for a command that has no certificate', async () => {
    expect(await loadTls({ ca: at('a.crt') }, 'cli')).toEqual({ ca: readFileSync(at('a.crt')) });
    expect(await loadTls({}, 'cli')).toEqual({});
  });

  it('wants a certificate and its key together', async () => {
    await expect(loadTls({ cert: at('a.crt') }, 'cli')).rejects.toMatchObject({ code: 'E_CONFIG' });
    await expect(loadTls({ key: at('a.key') }, 'cli')).rejects.toMatchObject({ code: 'E_CONFIG' });
  });
});
