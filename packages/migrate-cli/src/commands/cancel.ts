import type { Outcome } from '@vmferry/engine/report/report';
import type { Command } from 'commander';
import type { CommandContext } from '../context.ts';
import { follow } from '../follow.ts';
import { withAgent } from '../remote.ts';
import { type AgentOption, addAgentOption } from '../settings.ts';

interface CancelOptions extends AgentOption {
  readonly json?: boolean;
}

/** Whether the cancelling was done is what the status tells. */
const STATUS: Readonly<Record<Outcome, number>> = {
  cancelled: 0,
  completed: 1,
  failed: 1,
  refused: 1,
  attention: 3,
};

export function addCancelCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('cancel')
    .description('Cancels a migration and waits for its end. The guest goes on running on the source.')
    .argument('<id>', 'a migration, as `vmferry list` names it')
    .option('--json', 'print the report as one JSON object at the end, and nothing else');
  addAgentOption(command)
    .addHelpText(
      'after',
      '\nExit status: 0 cancelled; 1 it ended otherwise; 3 the guest needs an operator. After the switchover\n' +
        'a migration can only be finished.',
    )
    .action(async (id: string, options: CancelOptions) => {
      const status = await withAgent(options, context.io, async (agent) => {
        const observation = await agent.watch(id);
        await agent.cancel(id);
        return follow(observation, {
          ...options,
          io: context.io,
          statusOf: ({ outcome }) => STATUS[outcome],
        });
      });
      context.exit(status);
    });
}
