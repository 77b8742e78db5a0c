import type { MigrationSummary } from '@vmferry/agent-core/operations';
import type { Command } from 'commander';
import type { CommandContext } from '../context.ts';
import { renderMigrations } from '../display/migrations.ts';
import { write } from '../io.ts';
import { withAgent } from '../remote.ts';
import { type AgentOption, addAgentOption } from '../settings.ts';

interface ListOptions extends AgentOption {
  readonly json?: boolean;
}

export function addListCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('list')
    .description('Lists the migrations that an agent knows: running ones first, then the latest ended.')
    .option('--json', 'print one JSON object: { "schema": 1, "migrations": [...] }');
  addAgentOption(command).action(async (options: ListOptions) => {
    const migrations = await withAgent(options, context.io, (agent) => agent.list());
    await write(context.io.stdout, options.json === true ? asJson(migrations) : renderMigrations(migrations));
  });
}

function asJson(migrations: readonly MigrationSummary[]): string {
  return `${JSON.stringify({ schema: 1, migrations })}\n`;
}
