/** Certificates from files, checked here so that a wrong one is told at the start and by its name. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { type MigrationError, messageOf, type Side } from '@vmferry/engine/errors';
import type { TlsMaterial } from '@vmferry/wire/socket';
import { configError, readConfigFile } from './config.ts';

/** File names, PEM all of them. `cert` and `key` come together. */
export interface TlsFiles {
  /** This side's certificate, followed by those between it and its authority, if any. */
  readonly cert?: string | undefined;
  /** Without a passphrase. */
  readonly key?: string | undefined;
  /** The authorities whose certificates are believed. Without it those that Node.js comes with. */
  readonly ca?: string | undefined;
}

/** `E_CONFIG` for files that are missing or unreadable, `E_TLS` for what is in them. */
export async function loadTls(files: TlsFiles, side: Side, now = new Date()): Promise<TlsMaterial> {
  const { cert, key, ca } = files;
  if ((cert === undefined) !== (key === undefined)) {
    throw configError(
      cert === undefined ? 'a private key without its certificate' : 'a certificate without its private key',
      'Give both: --cert and --key, or tls.cert and tls.key in the configuration.',
      side,
    );
  }
  return {
    ...(cert === undefined || key === undefined ? {} : await loadIdentity(cert, key, side, now)),
    ...(ca === undefined ? {} : { ca: await loadAuthorities(ca, side, now) }),
  };
}

async function loadIdentity(
  certFile: string,
  keyFile: string,
  side: Side,
  now: Date,
): Promise<{ cert: Buffer; key: Buffer }> {
  const cert = await readConfigFile(certFile, 'certificate', side);
  const key = await readConfigFile(keyFile, 'private key', side);
  const chain = certificates(cert, certFile, side);
  for (const certificate of chain) checkDates(certificate, certFile, side, now);
  const leaf = chain[0] as X509Certificate;
  if (!leaf.checkPrivateKey(privateKey(key, keyFile, side))) {
    throw tlsError(
      `the key in ${keyFile} does not belong to the certificate in ${certFile} (${subject(leaf)})`,
      'Give the key that the certificate was made with; in the certificate file this host’s own comes first.',
      side,
    );
  }
  return { cert: Buffer.from(cert), key: Buffer.from(key) };
}

async function loadAuthorities(file: string, side: Side, now: Date): Promise<Buffer> {
  const ca = await readConfigFile(file, 'certificate authority', side);
  checkAuthorities(ca, file, side, now);
  return Buffer.from(ca);
}

/** A bundle may hold some that have expired, as those of distributions do; not only such. */
function checkAuthorities(pem: string, file: string, side: Side, now: Date): void {
  const authorities = certificates(pem, file, side);
  if (authorities.some((authority) => isCurrent(authority, now))) return;
  checkDates(authorities[0] as X509Certificate, file, side, now);
}

function certificates(pem: string, file: string, side: Side): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g);
  if (blocks === null) {
    throw tlsError(
      `${file} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)`,
      pem.includes('PRIVATE KEY-----')
        ? 'It holds a private key: --cert and --key may be exchanged.'
        : 'A DER file is converted with `openssl x509 -inform der -in FILE -out FILE.pem`.',
      side,
    );
  }
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw tlsError(
        `a certificate in ${file} cannot be read: ${messageOf(cause)}`,
        'The file is damaged: install it again.',
        side,
        cause,
      );
    }
  });
}

function privateKey(pem: string, file: string, side: Side): KeyObject {
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) {
    throw tlsError(
      `${file} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)`,
      pem.includes('BEGIN CERTIFICATE-----')
        ? 'It holds a certificate: --cert and --key may be exchanged.'
        : 'A DER file is converted with `openssl pkey -inform der -in FILE -out FILE.pem`.',
      side,
    );
  }
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    if (/BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(pem)) {
      throw tlsError(
        `the private key in ${file} is protected by a passphrase`,
        'An agent has nobody to ask: remove it with `openssl pkey -in FILE -out FILE.open` and guard the file.',
        side,
        cause,
      );
    }
    throw tlsError(
      `the private key in ${file} cannot be read: ${messageOf(cause)}`,
      'The file is damaged: install it again.',
      side,
      cause,
    );
  }
}

function isCurrent(certificate: X509Certificate, now: Date): boolean {
  return now >= new Date(certificate.validFrom) && now <= new Date(certificate.validTo);
}

function checkDates(certificate: X509Certificate, file: string, side: Side, now: Date): void {
  if (isCurrent(certificate, now)) return;
  const from = new Date(certificate.validFrom);
  const fault =
    now < from
      ? `is not valid before ${from.toISOString()}`
      : `expired on ${new Date(certificate.validTo).toISOString()}`;
  throw tlsError(
    `the certificate in ${file} (${subject(certificate)}) ${fault}`,
    now < from ? 'Check this host’s clock, or wait.' : 'Install a new certificate.',
    side,
  );
}

function subject(certificate: X509Certificate): string {
  return (certificate.subject ?? 'no subject').replaceAll('\n', ', ');
}

function tlsError(message: string, remedy: string, side: Side, cause?: unknown): MigrationError {
  return configError(message, remedy, side, { cause, code: 'E_TLS' });
}
