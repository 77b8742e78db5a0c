import type { Command } from 'commander';
import type { CommandContext } from '../context.ts';
import { renderMigrations } from '../display/migrations.ts';
import { renderSummary } from '../display/summary.ts';
import { write } from '../io.ts';
import type { Operator } from '../operator.ts';
import { withAgent } from '../remote.ts';
import { type AgentOption, addAgentOption } from '../settings.ts';

interface StatusOptions extends AgentOption {
  readonly json?: boolean;
}

export function addStatusCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('status')
    .description('Tells how an agent is, or one migration with its report.')
    .argument('[id]', 'a migration, as `vmferry list` names it')
    .option('--json', 'print one JSON object');
  addAgentOption(command).action(async (id: string | undefined, options: StatusOptions) => {
    const json = options.json === true;
    const text = await withAgent(options, context.io, (agent) =>
      id === undefined ? agentStatus(agent, options.agent, json) : migrationStatus(agent, id, json),
    );
    await write(context.io.stdout, text);
  });
}

async function agentStatus(agent: Operator, url: string, json: boolean): Promise<string> {
  const { role, version } = agent.hello;
  const migrations = await agent.list();
  const running = migrations.filter(({ outcome }) => outcome === undefined);
  if (json) return `${JSON.stringify({ schema: 1, agent: { url, role, version }, migrations })}\n`;
  const table = running.length > 0 ? renderMigrations(running) : '';
  const ended = migrations.length - running.length;
  return `${role} agent ${version} at ${url}: ${running.length} running, ${ended} ended\n${table}`;
}

async function migrationStatus(agent: Operator, id: string, json: boolean): Promise<string> {
  const { summary, report } = await agent.status(id);
  if (json) return `${JSON.stringify({ schema: 1, summary, report })}\n`;
  const table = renderMigrations([summary]);
  return report === null ? table : `${table}\n${renderSummary(report)}`;
}
