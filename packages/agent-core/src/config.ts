/** An agent's configuration: the file, its defaults, and what the agents are built from. */
import { readFile } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type ErrorCode, MigrationError, messageOf, type Side } from '@vmferry/engine/errors';
import { parseAddress } from '@vmferry/wire/address';
import type { TlsMaterial } from '@vmferry/wire/socket';
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { libvirtPolicyShape } from './libvirt-config.ts';
import { type Logger, logLevels } from './log.ts';
import type { AgentRole } from './operations.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Where agents listen unless told otherwise. Operators' commands look for one on the source's port. */
export const DEFAULT_PORTS = { source: 4446, dest: 4447, host: 4446 } as const;

export const defaultListen = (role: AgentRole): string => `ws://127.0.0.1:${DEFAULT_PORTS[role]}`;

const path = z.string().min(1).max(4096);
const guestName = z
  .string()
  .max(128)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'letters, digits, ".", "_" and "-", at most 128');

/** A guest that a destination agent may start itself. Nothing of it ever comes from a peer. */
export const guestFileSchema = z.strictObject({
  /** The QMP socket of the guest's QEMU. */
  qmp: path,
  /**
   * The arguments that start its QEMU, `-incoming defer -S` among them, the first being the program. Run
   * as they are, without a shell. Without a command the operator starts QEMU.
   */
  command: z
    .array(z.string().max(16 * KiB))
    .min(1)
    .max(1024)
    .optional(),
});
export type GuestFile = z.infer<typeof guestFileSchema>;

/** The bounds of what one agent takes and holds. Bytes. */
export const limitsShape = {
  /** The biggest WebSocket message that is accepted, 1 to 64 MiB, pages and header. Both agents use the smaller one. */
  maxFrameBytes: z
    .int()
    .min(MiB)
    .max(64 * MiB)
    .default(4 * MiB + 64 * KiB),
  /**
   * What one stream sends ahead of its acknowledgements, 64 KiB to 1 GiB. It should be no less than the
   * bandwidth-delay product (10 Gbit/s at 10 ms: 12 MiB); what is more than that only adds to downtime.
   */
  windowBytes: z
    .int()
    .min(64 * KiB)
    .max(1024 * MiB)
    .default(16 * MiB),
  /** All that one migration holds in page buffers, 8 MiB to 16 GiB, whatever the guest's size. */
  bufferBytes: z
    .int()
    .min(8 * MiB)
    .max(16 * 1024 * MiB)
    .default(64 * MiB),
};
export const limitsSchema = z.strictObject(limitsShape);
export type AgentLimits = z.infer<typeof limitsSchema>;

const agentUrl = z
  .string()
  .max(2048)
  .superRefine((text, context) => {
    try {
      parseAddress(text);
    } catch (cause) {
      context.addIssue({ code: 'custom', message: messageOf(cause) });
    }
  });

/** Paths of sockets have at most 107 bytes, and the rest of one needs its own. */
const socketDir = z.string().max(72).regex(/^\//, 'an absolute path');

export const libvirtSchema = z.strictObject({
  /** By default `qemu:///system`. */
  uri: z.string().min(1).max(2048).optional(),
  /**
   * The directory in which libvirtd and its QEMUs find the sockets of migrations, as they see it: the same on both
   * hosts. By default /run/vmferry.
   */
  socketDir: socketDir.optional(),
  /** The same directory as the agent sees it, where that is another path (libvirtd in a container). */
  socketDirHere: socketDir.optional(),
  ...libvirtPolicyShape,
});
export type LibvirtSettings = Partial<z.infer<typeof libvirtSchema>>;

/** The file itself. Unknown keys are refused; relative paths are relative to the file's directory. */
export const agentFileSchema = z
  .strictObject({
    /** wss://HOST:PORT, ws://HOST:PORT or ws+unix:/PATH. By default ws:// on loopback, port 4446 or 4447. */
    listen: agentUrl.optional(),
    /** Journals live here. By default /var/lib/vmferry for root, else $XDG_STATE_HOME/vmferry. */
    stateDir: path.optional(),
    /** File names, PEM; `cert` and `key` together. With `ca` every peer and operator must show a certificate of it. */
    tls: z
      .strictObject({ cert: path.optional(), key: path.optional(), ca: path.optional() })
      .refine((tls) => (tls.cert === undefined) === (tls.key === undefined), 'cert and key come together')
      .optional(),
    /** A file with the secret that peers and operators must show, 16 to 4096 characters. */
    tokenFile: path.optional(),
    /** Allow ws:// (neither encrypted nor authenticated) beyond this host. */
    insecure: z.boolean().default(false),
    /** Globs of guest URIs that a peer may bring in ("qemu:/run/vm/*.sock"); none listed: all. Destination. */
    allowGuests: z.array(z.string().min(1).max(4096)).max(1024).optional(),
    /** Guests of this host by name; operators and peers name one as qemu:NAME. */
    guests: z.record(guestName, guestFileSchema).default({}),
    /** The libvirt of this host. */
    libvirt: libvirtSchema.prefault({}),
    /** Simulated guests of this host: names of the library, or guest files. */
    simulate: z.array(path).max(256).default([]),
    /** The same, and they run here from the beginning. An agent of both roles. */
    start: z.array(path).max(256).default([]),
    /** Whether the agent moves a small simulated guest from itself to itself before its first migration. */
    rehearse: z.boolean().default(true),
    ...limitsShape,
    logLevel: z.enum(logLevels).default('info'),
  })
  .refine((file) => Object.keys(file.guests).length <= 4096, {
    path: ['guests'],
    error: 'at most 4096 guests',
  });

/** The file with every path absolute. Defaults that depend on the role are still open. */
export type AgentFile = z.infer<typeof agentFileSchema>;

interface AgentOptions {
  /** Where journals are kept; created when missing. */
  readonly stateDir: string;
  readonly tls?: TlsMaterial;
  /** Allow ws:// to and from other hosts. */
  readonly insecure: boolean;
  /** Shown to peers, and asked of them. */
  readonly token?: string;
  readonly log: Logger;
  /** By default those of `limitsSchema`. */
  readonly limits?: AgentLimits;
  readonly libvirt?: LibvirtSettings;
  /** Guests of this host by name (`qemu:NAME`). Those that come in the agent may start itself. */
  readonly guests?: Readonly<Record<string, GuestFile>>;
}

export type SourceAgentOptions = AgentOptions;

export interface DestAgentOptions extends AgentOptions {
  /** Globs of guest URIs that peers may bring in; absent: all. */
  readonly allowGuests?: readonly string[];
}

export function defaultLimits(): AgentLimits {
  return limitsSchema.parse({});
}

/** /var/lib/vmferry for root; else $XDG_STATE_HOME/vmferry or ~/.local/state/vmferry. */
export function defaultStateDir(env: NodeJS.ProcessEnv = process.env, uid = userInfo().uid): string {
  if (uid === 0) return '/var/lib/vmferry';
  const base = env['XDG_STATE_HOME'];
  // The XDG specification has relative paths ignored.
  if (base?.startsWith('/')) return join(base, 'vmferry');
  return join(env['HOME'] || homedir(), '.local/state/vmferry');
}

/** Reads and checks a file. Throws `MigrationError` with `E_CONFIG`, all faults in one message. */
export async function loadAgentFile(file: string, side: Side): Promise<AgentFile> {
  const absolute = resolve(file);
  return parseAgentFile(await readConfigFile(absolute, 'configuration', side), absolute, side);
}

/** `file` is for messages and for relative paths. */
export function parseAgentFile(text: string, file: string, side: Side): AgentFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: true, uniqueKeys: true });
  const broken = document.errors[0];
  if (broken !== undefined) {
    throw configError(`${file}: ${broken.message.trim()}`, 'Correct the file: it is YAML or JSON.', side);
  }
  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (cause) {
    throw configError(`${file}: ${messageOf(cause)}`, 'Correct the file: it is YAML or JSON.', side, {
      cause,
    });
  }
  const parsed = agentFileSchema.safeParse(content);
  if (!parsed.success) {
    const faults = parsed.error.issues.flatMap((issue) => describeIssue(issue, document, lines));
    throw configError(
      `${file}: ${faults.join('; ')}`,
      'Correct these entries; `vmferry agent --help` lists the keys of the file.',
      side,
    );
  }
  return withAbsolutePaths(parsed.data, dirname(resolve(file)));
}

/** Reads the secret: one line, 16 to 4096 printable characters without blanks. */
export async function loadToken(file: string, side: Side): Promise<string> {
  const token = (await readConfigFile(resolve(file), 'token', side)).trim();
  if (!/^[\x21-\x7e]{16,4096}$/.test(token)) {
    throw configError(
      `the token in ${file} is not one line of 16 to 4096 printable characters`,
      'Make one with `openssl rand -hex 32`, and give both agents and the operators the same.',
      side,
    );
  }
  return token;
}

/** Reads a file of configuration, at most 1 MiB, with errors that a person can act on. */
export async function readConfigFile(
  file: string,
  what: string,
  side: Side,
  code: ErrorCode = 'E_CONFIG',
): Promise<string> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw configError(
      `cannot read the ${what} file ${file}: ${whyUnreadable(cause)}`,
      'Check the path and its permissions.',
      side,
      { cause, code },
    );
  }
  if (text.length > MiB) {
    throw configError(`the ${what} file ${file} is bigger than 1 MiB`, 'Check the path.', side, { code });
  }
  return text;
}

export function configError(
  message: string,
  remedy: string,
  side: Side,
  options: { cause?: unknown; code?: ErrorCode } = {},
): MigrationError {
  // Configuration is read before anything is touched: the guest is where it was.
  const fields = {
    code: options.code ?? 'E_CONFIG',
    side,
    phase: 'preflight',
    guestRunsOn: 'source',
    remedy,
  } as const;
  return new MigrationError(message, fields, { cause: options.cause });
}

function withAbsolutePaths(file: AgentFile, directory: string): AgentFile {
  const at = (name: string) => resolve(directory, name);
  const all = <T extends object>(names: T): T =>
    Object.fromEntries(Object.entries(names).map(([key, name]) => [key, at(String(name))])) as T;
  const { stateDir, tokenFile, tls } = file;
  const guests = Object.entries(file.guests).map(([name, guest]) => [name, { ...guest, qmp: at(guest.qmp) }]);
  return {
    ...file,
    ...(stateDir === undefined ? {} : { stateDir: at(stateDir) }),
    ...(tokenFile === undefined ? {} : { tokenFile: at(tokenFile) }),
    ...(tls === undefined ? {} : { tls: all(tls) }),
    guests: Object.fromEntries(guests),
  };
}

function describeIssue(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const at = [...issue.path, key];
      return `unknown key ${dotted(at)}${lineOf(document, at, lines)}`;
    });
  }
  if (issue.path.length === 0) return ['the file is not a list of keys and values'];
  return [`${dotted(issue.path)}: ${issue.message}${lineOf(document, issue.path, lines)}`];
}

function dotted(keys: readonly PropertyKey[]): string {
  return keys
    .map((key, index) => (typeof key === 'number' ? `[${key}]` : `${index === 0 ? '' : '.'}${String(key)}`))
    .join('');
}

function lineOf(document: Document, keys: readonly PropertyKey[], lines: LineCounter): string {
  const node: unknown = document.getIn(keys, true);
  return isNode(node) && node.range ? ` (line ${lines.linePos(node.range[0]).line})` : '';
}

function whyUnreadable(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  switch (code) {
    case 'ENOENT':
      return 'there is no such file';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'it is a directory';
    default:
      return messageOf(cause);
  }
}
