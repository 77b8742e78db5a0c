import type { CommandIo } from './io.ts';
import { connectOperator, type Operator } from './operator.ts';
import { type AgentOption, loadSettings } from './settings.ts';

/** Does something with the agent that `--agent` names, and hangs up. */
export async function withAgent<T>(
  options: AgentOption,
  io: CommandIo,
  work: (agent: Operator) => Promise<T>,
): Promise<T> {
  const { insecure, tls, token } = await loadSettings(options, io, 'cli');
  const agent = await connectOperator(options.agent, {
    insecure,
    ...(tls === undefined ? {} : { tls }),
    ...(token === undefined ? {} : { token }),
  });
  try {
    return await work(agent);
  } finally {
    agent.close();
  }
}
