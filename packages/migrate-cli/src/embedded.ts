/** The agents that run inside the command, loaded when they are needed. */
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import type { Operations } from '@vmferry/agent-core/operations';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import type { Peer } from '@vmferry/wire/listener';

interface EmbeddedAgent extends Operations {
  /** What the first migration would otherwise be the first to ask for. Changes nothing. */
  rehearse?(): Promise<void>;
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
  /** `close` waits no more for guests that are being taken in. */
  abandon(): void;
}

/** The same host, as each role has it. */
export interface HostAgentOptions {
  readonly source: SourceAgentOptions;
  readonly dest: DestAgentOptions;
}

export interface SimulatedOnHost {
  /** They may be here, and come in first. */
  readonly admitted: readonly GuestDefinition[];
  /** They run here from the beginning. */
  readonly started: readonly GuestDefinition[];
}

/** `simulated`: the simulated guests that the agent's host may have. They end with the agent. */
export interface AgentFactory {
  source(options: SourceAgentOptions, simulated: readonly GuestDefinition[]): Promise<EmbeddedSource>;
  dest(options: DestAgentOptions, simulated: readonly GuestDefinition[]): Promise<EmbeddedDest>;
  /** Both roles, over the same guests. */
  host(options: HostAgentOptions, simulated: SimulatedOnHost): Promise<EmbeddedDest>;
}

export const embeddedAgents: AgentFactory = {
  async source(options, simulated) {
    const { SourceAgent } = await import('@vmferry/source-agent/agent');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const simulation = new SimulationHost(simulated);
    return closingBoth(new SourceAgent(options, { simulation }), simulation);
  },
  async dest(options, simulated) {
    const { DestAgent } = await import('@vmferry/dest-agent/agent');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const simulation = new SimulationHost(simulated);
    return takingIn(new DestAgent(options, { simulation }), simulation);
  },
  async host({ source, dest }, { admitted, started }) {
    const { SourceAgent } = await import('@vmferry/source-agent/agent');
    const { DestAgent } = await import('@vmferry/dest-agent/agent');
    const { SimulationHost } = await import('@vmferry/memsim/guest/host');
    const { HostAgent } = await import('./host-agent.ts');
    const simulation = new SimulationHost([...admitted, ...started], { startsWhenAsked: false });
    await Promise.all(started.map(({ file }) => simulation.start(file.name)));
    const both = new HostAgent(new SourceAgent(source, { simulation }), new DestAgent(dest, { simulation }));
    return takingIn(both, simulation);
  },
};

interface Closing {
  close(): Promise<void>;
}

function takingIn(agent: EmbeddedDest, simulation: Closing): EmbeddedDest {
  return {
    ...closingBoth(agent, simulation),
    acceptMigration: (socket, peer) => agent.acceptMigration(socket, peer),
    abandon: () => agent.abandon(),
  };
}

function closingBoth(agent: EmbeddedSource, simulation: Closing): EmbeddedSource {
  return {
    role: agent.role,
    migrate: (request) => agent.migrate(request),
    list: () => agent.list(),
    find: (id) => agent.find(id),
    settle: (guest) => agent.settle(guest),
    rehearse: async () => await agent.rehearse?.(),
    close: async () => {
      await agent.close();
      await simulation.close();
    },
  };
}
