import { type AgentLimits, defaultListen } from '@vmferry/agent-core/config';
import { type Logger, type LogLevel, logLevels } from '@vmferry/agent-core/log';
import type { Operations } from '@vmferry/agent-core/operations';
import { type AgentServer, type ServeOptions, serveAgent } from '@vmferry/agent-core/serve';
import { Argument, type Command, Option } from 'commander';
import type { CommandContext } from '../context.ts';
import type { EmbeddedSource } from '../embedded.ts';
import { onInterrupt } from '../io.ts';
import { agentUrl, collected } from '../parsers.ts';
import { Rehearsal } from '../rehearsal.ts';
import {
  addConnectionOptions,
  addLibvirtOption,
  addStateDirOption,
  type HostOptions,
  loadSettings,
  loggerFor,
} from '../settings.ts';
import { loadSimulated } from '../simulated.ts';

interface AgentCommandOptions extends HostOptions {
  readonly listen?: string;
  readonly logLevel?: LogLevel;
  readonly allowGuest?: readonly string[];
  readonly simulate?: readonly string[];
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
  allowGuests    (dest) list of globs of guest URIs that peers may bring in; by default all
  guests         (dest) NAME: { qmp: SOCKET, command: [PROGRAM, ARG, ...] }: guests that the agent may
                 start itself (with -incoming defer -S in the command); a peer names one as qemu:NAME
  libvirt        { uri, socketDir, socketDirHere }: the libvirt of this host (qemu:///system); the directory of
                 migrations' sockets as libvirtd sees it, the same on both hosts (/run/vmferry), and as the
                 agent sees it, where that is another path. (dest) What domains may bring:
                 imageDirectories, baseImageDirectories, diskDirectories (lists of PATH or { path, here }),
                 emulators, allowXmlChanges (lists), allowQemuArguments (true, false), hostRoot; see the README
  simulate       list of simulated guests that this host may have: names of the library or guest files;
                 named as sim:NAME, started when first asked for
  rehearse       false: the agent does not move a small simulated guest from itself to itself at its start, which
                 makes its first real migration as fast as later ones (2 to 3 s of CPU; default true)
  maxFrameBytes  the biggest message that is taken (default 4 MiB and a header)
  windowBytes    what a stream sends ahead of its acknowledgements (default 16 MiB)
  bufferBytes    all that one migration holds in buffers (default 64 MiB)
  logLevel       ${logLevels.join(', ')} (default info)

Logs go to standard error, one JSON object a line. SIGTERM or SIGINT ends the agent.

Examples:
  vmferry agent dest --listen wss://0.0.0.0:4447 --cert h2.crt --key h2.key --ca ca.crt
  vmferry agent source --config /etc/vmferry/source.yaml
  vmferry agent dest --simulate web --simulate ./big.yaml`;

export function addAgentCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('agent')
    .description('Runs an agent: source on the host that guests leave, dest on the one that they enter.')
    .addArgument(new Argument('<role>', 'which of the two').choices(['source', 'dest']))
    .addOption(
      new Option('--listen <url>', 'where to listen (source: ws://127.0.0.1:4446, dest: :4447)').argParser(
        agentUrl,
      ),
    )
    .addOption(
      new Option('--allow-guest <glob>', 'guests that peers may bring in; may be repeated (dest)').argParser(
        collected,
      ),
    )
    .addOption(
      new Option(
        '--simulate <guest>',
        'simulated guest of this host, a name of the library or a guest file; may be repeated',
      ).argParser(collected),
    )
    .addOption(new Option('--no-rehearsal', 'do not move a small simulated guest to itself at the start'))
    .addOption(new Option('--log-level <level>', 'how much to log').choices(logLevels));
  addLibvirtOption(addStateDirOption(addConnectionOptions(command)))
    .addHelpText('after', HELP)
    .action((role: 'source' | 'dest', options: AgentCommandOptions) => runAgent(role, options, context));
}

/** Returns when the agent was told to end and has. */
async function runAgent(
  role: 'source' | 'dest',
  options: AgentCommandOptions,
  context: CommandContext,
): Promise<void> {
  const { io } = context;
  const settings = await loadSettings(options, io, role);
  const { file, limits } = settings;
  const log = loggerFor(io.stderr, options.logLevel ?? file.logLevel, role);
  const common = {
    stateDir: settings.stateDir,
    insecure: settings.insecure,
    limits,
    log,
    libvirt: settings.libvirt,
    ...(settings.tls === undefined ? {} : { tls: settings.tls }),
    ...(settings.token === undefined ? {} : { token: settings.token }),
  };
  const listen = options.listen ?? file.listen ?? defaultListen(role);
  const allowGuests = options.allowGuest ?? file.allowGuests;
  const simulated = await loadSimulated(options.simulate ?? [], options, settings, role);
  const rehearsal =
    options.rehearsal && file.rehearse ? new Rehearsal({ agents: context.agents, log }) : undefined;
  if (role === 'source') {
    const agent = await context.agents.source(common, simulated);
    await agent.settle();
    const operations = noticing(agent, () => rehearsal?.stop());
    const serving = { ...serveOptions(common, limits), listen, operations };
    await serveUntilTold(agent, serving, rehearsal, context);
  } else {
    const agent = await context.agents.dest(
      {
        ...common,
        guests: file.guests,
        ...(allowGuests === undefined ? {} : { allowGuests }),
      },
      simulated,
    );
    await agent.settle();
    const acceptMigration: ServeOptions['acceptMigration'] = (socket, peer) => {
      rehearsal?.stop();
      agent.acceptMigration(socket, peer);
    };
    const serving = { ...serveOptions(common, limits), listen, operations: agent, acceptMigration };
    await serveUntilTold(agent, serving, rehearsal, context);
  }
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

function serveOptions<T extends { log: Logger; insecure: boolean }>(common: T, limits: AgentLimits) {
  return { ...common, maxFrameBytes: limits.maxFrameBytes };
}

async function serveUntilTold(
  agent: Pick<EmbeddedSource, 'close'>,
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
    else options.log.warn('still ending: migrations are being settled');
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
