/** A destination agent of this process, for a source agent of the same process. */
import type { Logger } from '@vmferry/agent-core/log';
import { type AgentServer, serveAgent } from '@vmferry/agent-core/serve';
import type { EmbeddedDest } from './embedded.ts';

export interface LoopbackOptions {
  /** Others on this host reach the listener as well. */
  readonly token: string;
  readonly log: Logger;
  /** By default the wire's. */
  readonly maxFrameBytes?: number;
}

/** Rejects as `serveAgent` does. */
export function serveOnLoopback(
  agent: Omit<EmbeddedDest, 'settle' | 'close'>,
  options: LoopbackOptions,
): Promise<AgentServer> {
  return serveAgent({
    ...options,
    operations: agent,
    listen: 'ws://127.0.0.1:0',
    insecure: false,
    acceptMigration: (socket, peer) => agent.acceptMigration(socket, peer),
  });
}
