import type { AgentFactory } from './embedded.ts';
import type { CommandIo } from './io.ts';

/** What every command is given. */
export interface CommandContext {
  readonly io: CommandIo;
  readonly agents: AgentFactory;
  /** The exit status, unless the command throws. */
  exit(status: number): void;
}
