/** The agents that run inside the command, loaded when they are needed. */
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import type { Operations } from '@vmferry/agent-core/operations';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import type { Peer } from '@vmferry/wire/listener';

export interface EmbeddedSource extends Operations {
  close(): Promise<void>;
}

export interface EmbeddedDest extends EmbeddedSource {
  acceptMigration(socket: FrameSocket, peer: Peer): void;
}

export interface AgentFactory {
  source(options: SourceAgentOptions): Promise<EmbeddedSource>;
  dest(options: DestAgentOptions): Promise<EmbeddedDest>;
}

export const embeddedAgents: AgentFactory = {
  async source(options) {
    const { SourceAgent } = await import('@vmferry/source-agent/agent');
    return new SourceAgent(options);
  },
  async dest(options) {
    const { DestAgent } = await import('@vmferry/dest-agent/agent');
    return new DestAgent(options);
  },
};
