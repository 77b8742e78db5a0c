import { defaultListen } from '@vmferry/agent-core/config';
import { type LogLevel, logLevels } from '@vmferry/agent-core/log';
import { type AgentRole, type Operations, startingSide } from '@vmferry/agent-core/operations';
import { type AgentServer, type ServeOptions, serveAgent } from '@vmferry/agent-core/serve';
import { Argument, type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import type { EmbeddedDest, EmbeddedSource } from '../embedded.ts';
import { onInterrupt } from '../io.ts';
import { agentUrl, collected } from '../parsers.ts';
import { Rehearsal } from '../rehearsal.ts';
import { usageError } from '../reports.ts';
import {
  addConnectionOptions,
  addLibvirtOption,
  addStateDirOption,
  type HostOptions,
  type HostSettings,
  loadSettings,
  loggerFor,
} from '../settings.ts';
import { loadSimulated, loadSimulatedHost } from '../simulated.ts';

interface AgentCommandOptions extends HostOptions {
  readonly listen?: string;
  readonly logLevel?: LogLevel;
  readonly allowGuest?: readonly string[];
  readonly simulate?: readonly string[];
  readonly start?: readonly string[];
  /** Commander's name for `--no-rehearsal`: true without it. */
  readonly rehearsal: boolean;
}

const HELP = `
The configuration file has these keys, all optional; unknown ones are refused:
  listen         wss://HOST:PORT, ws://HOST:PORT or ws+unix:/PATH
  stateDir       directory of the journals
  tls            { cert, key, ca }: PEM files; with ca every peer must show a certificate of it
  tokenFile      file with the secret that peers and operators must show
  insecure       true allows ws:// beyond this host
  allowGuests    (dest, host) list of globs of guest URIs that peers may bring in; by default all
  guests         NAME: { qmp: SOCKET, command: [PROGRAM, ARG, ...] }: guests of this host that are named as
                 qemu:NAME; with a command (-incoming defer -S in it) the agent starts those that come in
  libvirt        { uri, socketDir, socketDirHere }: the libvirt of this host (qemu:///system); the directory of
                 migrations' sockets as libvirtd sees it, the same on both hosts (/run/vmferry), and as the
                 agent sees it, where that is another path. (dest, host) What domains may bring:
                 imageDirectories, baseImageDirectories, diskDirectories (lists of PATH or { path, here }),
                 emulators, allowXmlChanges (lists), allowQemuArguments (true, false), hostRoot; see the README
  simulate       list of simulated guests that this host may have: names of the library or guest files;
                 named as sim:NAME; a source agent starts them when they are first asked for
  start          (host) those that run here from the beginning
  rehearse       false: the agent does not move a small simulated guest from itself to itself at its start, which
                 makes its first real migration as fast as later ones (2 to 3 s of CPU; default true)
  maxFrameBytes  the biggest message that is taken (default 4 MiB and a header)
  windowBytes    what a stream sends ahead of its acknowledgements (default 16 MiB)
  bufferBytes    all that one migration holds in buffers (default 64 MiB)
  logLevel       ${logLevels.join(', ')} (default info)

An agent of both roles ('host') takes guests in, and moves those that are there on to other agents: there and
back, or from host to host. Migrations name it by --to and by --from. It has one listener, one file and one
directory of journals.

Logs go to standard error, one JSON object a line. SIGTERM, SIGINT or SIGHUP ends the agent: what is not committed
is given up, what is committed comes to its end first. A second one waits no more for guests that come in.

Examples:
  vmferry agent dest --listen wss://0.0.0.0:4447 --cert h2.crt --key h2.key --ca ca.crt
  vmferry agent source --config /etc/vmferry/source.yaml
  vmferry agent host --listen wss://0.0.0.0:4447 --config /etc/vmferry/host.yaml
  Two hosts of simulated guests, of which 'web' runs on the first:
    vmferry agent host --listen ws://127.0.0.1:5001 --start web
    vmferry agent host --listen ws://127.0.0.1:5002 --simulate web`;

export function addAgentCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('agent')
    .description(
      'Runs an agent: source on the host that guests leave, dest on the one that they enter, host for both.',
    )
    .addArgument(new Argument('<role>', 'what it serves').choices(['source', 'dest', 'host']))
    .addOption(
      new Option(
        '--listen <url>',
        'where to listen (source, host: ws://127.0.0.1:4446, dest: :4447)',
      ).argParser(agentUrl),
    )
    .addOption(
      new Option(
        '--allow-guest <glob>',
        'guests that peers may bring in; may be repeated (dest, host)',
      ).argParser(collected),
    )
    .addOption(
      new Option(
        '--simulate <guest>',
        'simulated guest of this host, a name of the library or a guest file; may be repeated',
      ).argParser(collected),
    )
    .addOption(
      new Option(
        '--start <guest>',
        'the same, and it runs here from the beginning; may be repeated (host)',
      ).argParser(collected),
    )
    .addOption(new Option('--no-rehearsal', 'do not move a small simulated guest to itself at the start'))
    .addOption(new Option('--log-level <level>', 'how much to log').choices(logLevels));
  addLibvirtOption(addStateDirOption(addConnectionOptions(command)))
    .addHelpText('after', HELP)
    .action((role: AgentRole, options: AgentCommandOptions) => runAgent(role, options, context));
}

/** Returns when the agent was told to end and has. */
async function runAgent(
  role: AgentRole,
  options: AgentCommandOptions,
  context: CommandContext,
): Promise<void> {
  const { io } = context;
  const settings = await loadSettings(options, io, startingSide(role));
  const { file, limits } = settings;
  if (role !== 'host' && [...(options.start ?? []), ...file.start].length > 0) {
    throw usageError(
      `the ${role} agent was told to start simulated guests: only one of both roles is (a source agent starts its own when they are first asked for, a destination agent takes guests in)`,
    );
  }
  const agent = await agentOf(role, options, settings, context);
  await agent.settle();
  const log = loggerFor(io.stderr, options.logLevel ?? file.logLevel, role);
  const rehearsal =
    options.rehearsal && file.rehearse
      ? new Rehearsal({ agents: context.agents, own: async () => await agent.rehearse?.(), log })
      : undefined;
  const serving: ServeOptions = {
    operations: noticing(agent, () => rehearsal?.stop()),
    listen: options.listen ?? file.listen ?? defaultListen(role),
    ...identityOf(settings),
    log,
    maxFrameBytes: limits.maxFrameBytes,
    ...('acceptMigration' in agent
      ? {
          acceptMigration: (socket, peer) => {
            rehearsal?.stop();
            agent.acceptMigration(socket, peer);
          },
        }
      : {}),
  };
  await serveUntilTold(agent, serving, rehearsal, context);
  context.exit(0);
}

/** The same operations, with a word before each migration. */
function noticing(operations: Operations, onMigration: () => void): Operations {
  return {
    role: operations.role,
    migrate(request) {
      onMigration();
      return operations.migrate(request);
    },
    list: () => operations.list(),
    find: (id) => operations.find(id),
  };
}

async function agentOf(
  role: AgentRole,
  options: AgentCommandOptions,
  settings: HostSettings,
  { agents, io }: CommandContext,
): Promise<EmbeddedSource | EmbeddedDest> {
  const { file, stateDir, limits, libvirt } = settings;
  const level = options.logLevel ?? file.logLevel;
  const source = {
    ...{ stateDir, limits, libvirt, guests: file.guests, ...identityOf(settings) },
    log: loggerFor(io.stderr, level, 'source'),
  };
  const allowGuests = options.allowGuest ?? file.allowGuests;
  const dest = {
    ...source,
    log: loggerFor(io.stderr, level, 'dest'),
    ...(allowGuests === undefined ? {} : { allowGuests }),
  };
  if (role === 'host')
    return agents.host({ source, dest }, await loadSimulatedHost(options, options, settings));
  const simulated = await loadSimulated(options.simulate ?? [], options, settings, role);
  return role === 'source' ? agents.source(source, simulated) : agents.dest(dest, simulated);
}

/** How the agent proves who it is, and whom it believes. */
function identityOf({
  insecure,
  tls,
  token,
}: HostSettings): Pick<ServeOptions, 'insecure' | 'tls' | 'token'> {
  return {
    insecure,
    ...(tls === undefined ? {} : { tls }),
    ...(token === undefined ? {} : { token }),
  };
}

async function serveUntilTold(
  agent: EmbeddedSource | EmbeddedDest,
  options: ServeOptions,
  rehearsal: Rehearsal | undefined,
  context: CommandContext,
): Promise<void> {
  let told: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    told = resolve;
  });
  const stopListening = onInterrupt(context.io.signals, (times) => {
    if (times === 1) told();
    else if ('abandon' in agent) {
      options.log.warn('the agent no longer waits for guests that are being taken in');
      agent.abandon();
    } else options.log.warn('still ending: migrations are being settled');
  });
  let server: AgentServer | undefined;
  let rehearsed: Promise<void> | undefined;
  try {
    server = await serveAgent(options);
    rehearsed = rehearsal?.run();
    await ended;
    options.log.info('the agent ends');
  } finally {
    rehearsal?.stop();
    // First the migrations, which need their connections to settle.
    await agent.close();
    await rehearsed;
    await server?.close();
    stopListening();
  }
}
