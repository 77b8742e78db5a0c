import type { Command } from 'commander';
import type { CommandContext } from '../context.ts';
import { follow } from '../follow.ts';
import { onInterrupt } from '../io.ts';
import type { Operator } from '../operator.ts';
import { withAgent } from '../remote.ts';
import { usageError } from '../reports.ts';
import { type AgentOption, addAgentOption } from '../settings.ts';

export interface WatchOptions extends AgentOption {
  readonly json?: boolean;
  readonly events?: string;
}

/** The status of a shell's command that SIGINT ended. */
const INTERRUPTED = 130;

export function addWatchCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('watch')
    .description('Shows a migration that runs in an agent, up to its end. Ctrl-C ends the watching only.')
    .argument('[id]', 'a migration, as `vmferry list` names it; not needed when only one runs')
    .option('--json', 'print the report as one JSON object at the end, and nothing else')
    .option('--events <file>', 'write every event to a file, one JSON object a line ("-": standard output)');
  addAgentOption(command)
    .addHelpText('after', '\nExit status: that of the migration; 130 when the watching was interrupted.')
    .action(async (id: string | undefined, options: WatchOptions) => {
      context.exit(await withAgent(options, context.io, (agent) => watch(agent, id, options, context)));
    });
}

async function watch(
  agent: Operator,
  id: string | undefined,
  options: WatchOptions,
  context: CommandContext,
): Promise<number> {
  const { signals } = context.io;
  let stop: () => void = () => {};
  const interrupted = new Promise<number>((resolve) => {
    stop = onInterrupt(signals, () => resolve(INTERRUPTED));
  });
  try {
    const observation = await agent.watch(id ?? (await onlyRunning(agent)));
    return await follow(observation, { ...options, io: context.io, interrupted });
  } finally {
    stop();
  }
}

async function onlyRunning(agent: Operator): Promise<string> {
  const running = (await agent.list()).filter(({ outcome }) => outcome === undefined);
  const [only] = running;
  if (only !== undefined && running.length === 1) return only.id;
  throw usageError(
    only === undefined
      ? 'no migration runs in this agent'
      : `${running.length} migrations run in this agent: name one of ${running.map(({ id }) => id).join(', ')}`,
  );
}
