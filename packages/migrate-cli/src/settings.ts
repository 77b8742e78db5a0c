/** What `--config` and the options about hosts come to; an option wins over the file. */
import {
  type AgentFile,
  type AgentLimits,
  defaultStateDir,
  type LibvirtSettings,
  loadAgentFile,
  loadToken,
  parseAgentFile,
} from '@vmferry/agent-core/config';
import { createLogger, type Logger, type LogLevel } from '@vmferry/agent-core/log';
import type { AgentRole } from '@vmferry/agent-core/operations';
import { loadTls } from '@vmferry/agent-core/tls';
import type { Side } from '@vmferry/engine/errors';
import type { TlsMaterial } from '@vmferry/wire/socket';
import { type Command, Option } from 'commander';
import type { CommandIo, Output } from './io.ts';
import { agentUrl } from './parsers.ts';

/** How this side proves who it is and whom it believes. */
export interface HostOptions {
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
  readonly tokenFile?: string;
  readonly insecure?: boolean;
  readonly config?: string;
  readonly stateDir?: string;
  readonly libvirt?: string;
}

export interface HostSettings {
  readonly file: AgentFile;
  readonly stateDir: string;
  readonly tls?: TlsMaterial;
  readonly token?: string;
  readonly insecure: boolean;
  readonly limits: AgentLimits;
  readonly libvirt: LibvirtSettings;
}

/** The options of every command that speaks to an agent or is one. */
export function addConnectionOptions(command: Command): Command {
  return command
    .option('--cert <file>', 'certificate of this side, PEM')
    .option('--key <file>', 'its private key, PEM')
    .option('--ca <file>', 'authorities whose certificates are believed, PEM')
    .option('--token-file <file>', 'file with the secret that agents ask for')
    .option('--insecure', 'allow ws:// to other hosts: neither encrypted nor authenticated')
    .option('--config <file>', 'configuration file (YAML or JSON); options win over it');
}

export function addStateDirOption(command: Command): Command {
  return command.option('--state-dir <dir>', 'where journals are kept (root: /var/lib/vmferry)');
}

export function addLibvirtOption(command: Command): Command {
  return command.option('--libvirt <uri>', 'the libvirt of this host (default: qemu:///system)');
}

export interface AgentOption extends HostOptions {
  readonly agent: string;
}

export function addAgentOption(command: Command): Command {
  command.addOption(
    new Option('--agent <url>', 'the agent to ask').argParser(agentUrl).default('ws://127.0.0.1:4446'),
  );
  return addConnectionOptions(command);
}

/** Rejects with `MigrationError`: `E_CONFIG`, `E_TLS`. */
export async function loadSettings(options: HostOptions, io: CommandIo, side: Side): Promise<HostSettings> {
  const file =
    options.config === undefined
      ? parseAgentFile('', 'no configuration', side)
      : await loadAgentFile(options.config, side);
  const names = {
    cert: options.cert ?? file.tls?.cert,
    key: options.key ?? file.tls?.key,
    ca: options.ca ?? file.tls?.ca,
  };
  const hasTls = Object.values(names).some((name) => name !== undefined);
  const tokenFile = options.tokenFile ?? file.tokenFile;
  const { maxFrameBytes, windowBytes, bufferBytes } = file;
  return {
    file,
    stateDir: options.stateDir ?? file.stateDir ?? defaultStateDir(io.env),
    insecure: options.insecure === true || file.insecure,
    limits: { maxFrameBytes, windowBytes, bufferBytes },
    libvirt: { ...file.libvirt, ...(options.libvirt === undefined ? {} : { uri: options.libvirt }) },
    ...(hasTls ? { tls: await loadTls(names, side) } : {}),
    ...(tokenFile === undefined ? {} : { token: await loadToken(tokenFile, side) }),
  };
}

/** Logs go to the command's standard error, whichever that is. */
export function loggerFor(output: Output, level: LogLevel, role: AgentRole): Logger {
  return createLogger(
    output === process.stderr
      ? { level, role }
      : { level, role, destination: { write: (line) => void output.write(line) } },
  );
}
