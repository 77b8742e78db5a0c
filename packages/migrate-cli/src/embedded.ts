/** The agents that run inside the command, loaded when they are needed. */
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import type { Operations } from '@vmferry/agent-core/operations';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import type { Peer } from '@vmferry/wire/listener';

interface EmbeddedAgent extends Operations {
  close(): Promise<void>;
}

export interface EmbeddedSource extends EmbeddedAgent {
  /** Takes back what an agent before this one left and never committed; of one guest, or of all. */
  settle(guest?: string): Promise<void>;
}

export interface EmbeddedDest extends EmbeddedAgent {
  /** Ends what an agent before this one left and never ran; of one guest, or of all. */
  settle(guest?: string): Promise<void>;
  acceptMigration(socket: FrameSocket, peer: Peer): void;
}

/** `simulated`: the simulated guests that the agent's host may have. They end with the agent. */
export interface AgentFactory {
  source(options: SourceAgentOptions, simulated: readonly GuestDefinition[]): Promise<EmbeddedSource>;
  dest(options: DestAgentOptions, simulated: readonly GuestDefinition[]): Promise<EmbeddedDest>;
}

export const embeddedAgents: AgentFactory = {
  async source(options, simulated) {
    const { SourceAgent } = await import('@vmferry/source-agent/agent');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const simulation = new SimulationHost(simulated);
    const agent = new SourceAgent(options, { simulation });
    return { ...closingBoth(agent, simulation), settle: (guest) => agent.settle(guest) };
  },
  async dest(options, simulated) {
    const { DestAgent } = await import('@vmferry/dest-agent/agent');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const simulation = new SimulationHost(simulated);
    const agent = new DestAgent(options, { simulation });
    return {
      ...closingBoth(agent, simulation),
      settle: (guest) => agent.settle(guest),
      acceptMigration: (socket, peer) => agent.acceptMigration(socket, peer),
    };
  },
};

function closingBoth(agent: EmbeddedAgent, simulation: { close(): Promise<void> }): EmbeddedAgent {
  return {
    role: agent.role,
    migrate: (request) => agent.migrate(request),
    list: () => agent.list(),
    find: (id) => agent.find(id),
    close: async () => {
      await agent.close();
      await simulation.close();
    },
  };
}
