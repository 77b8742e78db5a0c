/** The command as a function: arguments in, exit status out. */
import { VERSION } from '@vmferry/agent-core/version';
import { MigrationError } from '@vmferry/engine/errors';
import { exitStatus } from '@vmferry/engine/report/report';
import { Command, CommanderError } from 'commander';
import { addAgentCommand } from './commands/agent.ts';
import { addCancelCommand } from './commands/cancel.ts';
import { addDemoCommand } from './commands/demo.ts';
import { addListCommand } from './commands/list.ts';
import { addMigrateCommand } from './commands/migrate.ts';
import { addPlanCommand } from './commands/plan.ts';
import { addResumeCommand } from './commands/resume.ts';
import { addSimCommand } from './commands/sim.ts';
import { addStatusCommand } from './commands/status.ts';
import { addWatchCommand } from './commands/watch.ts';
import type { CommandContext } from './context.ts';
import { renderError } from './display/summary.ts';
import { type AgentFactory, embeddedAgents } from './embedded.ts';
import { type CommandIo, write } from './io.ts';
import { errorReportOf, refusedReport, usageError } from './reports.ts';

const HELP = `
Exit status: 0 completed; 1 failed, the guest runs on the source, or nowhere where its own hypervisor ended;
2 refused before anything was touched; 3 the guest needs an operator; 130 cancelled.

Guests: qemu:/PATH/TO/QMP.SOCK, libvirt:NAME, sim:NAME.
Agents: wss://HOST:PORT, ws://HOST:PORT or ws+unix:/PATH. Source agents and those of both roles listen on
port 4446, destination agents on 4447 unless told otherwise.`;

/** Never rejects. `agents` makes the agents that run inside the command. */
export async function run(
  argv: readonly string[],
  io: CommandIo,
  agents: AgentFactory = embeddedAgents,
): Promise<number> {
  let status = 0;
  const context: CommandContext = {
    io,
    agents,
    exit: (code) => {
      status = code;
    },
  };
  try {
    await commands(context).parseAsync([...argv], { from: 'user' });
    return status;
  } catch (thrown) {
    return await explain(thrown, argv, io);
  }
}

/** The program with all its commands, before anything is asked of it. */
export function commands(context: CommandContext): Command {
  const { stdout, stderr } = context.io;
  const program = new Command('vmferry')
    .description('Moves running virtual machines between hosts.')
    .version(VERSION)
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: (text) => stderr.write(text),
      getOutHelpWidth: () => stdout.columns ?? 100,
      getErrHelpWidth: () => stderr.columns ?? 100,
    })
    .exitOverride()
    .showHelpAfterError('(--help tells more)')
    .addHelpText('after', HELP);
  addDemoCommand(program, context);
  addMigrateCommand(program, context);
  addPlanCommand(program, context);
  addResumeCommand(program, context);
  addSimCommand(program, context);
  addAgentCommand(program, context);
  addListCommand(program, context);
  addStatusCommand(program, context);
  addWatchCommand(program, context);
  addCancelCommand(program, context);
  return program;
}

/** With `--json` standard output has one object, whatever went wrong. */
async function explain(thrown: unknown, argv: readonly string[], io: CommandIo): Promise<number> {
  if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
  const options = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  // Commander has told its own errors already.
  const error =
    thrown instanceof CommanderError ? usageError(thrown.message.replace(/^error: /, '')) : thrown;
  const told = errorReportOf(error);
  // A simulation has no guest that could run anywhere.
  const report = refusedReport(argv[0] === 'sim' ? { ...told, guestRunsOn: 'neither' } : told);
  if (!(thrown instanceof CommanderError) && report.error !== null)
    await write(io.stderr, renderError(report.error));
  if (options.includes('--json')) await write(io.stdout, `${JSON.stringify(report)}\n`);
  if (!(error instanceof MigrationError) && error instanceof Error && io.env['VMFERRY_DEBUG'] !== undefined) {
    await write(io.stderr, `${error.stack}\n`);
  }
  return exitStatus(report);
}
