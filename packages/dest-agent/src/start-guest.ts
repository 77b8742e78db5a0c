/** Starts the QEMU of a guest from the agent's own configuration. Nothing of it comes from a peer. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { GuestError } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import { isNobodyThere, QmpError } from '@vmferry/hypervisor/qemu/qmp/errors';

const START_TIMEOUT_MS = 15_000;
const RETRY_MS = 20;
const STDERR_BYTES = 4096;

/** The QEMU outlives the agent, as a guest must; one that takes no guest in ends again. */
export async function startGuest(name: string, qmp: string, command: readonly string[]): Promise<DestGuest> {
  // One that is there already keeps its monitor: a second would take the socket's path from it.
  const found = await runningGuest(qmp);
  if (found) return found;
  const [program, ...args] = command as [string, ...string[]];
  const child = spawn(program, args, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-STDERR_BYTES);
  });
  const ended = Promise.race([
    once(child, 'exit').then(([code]) => `it ended with status ${String(code)}: ${said.trim()}`),
    once(child, 'error').then(([error]) => String(error)),
  ]);
  let why: string | undefined;
  void ended.then((reason) => {
    why = reason;
  });
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      const guest = await QemuDestGuest.connect(qmp, { endUnused: true });
      child.unref();
      (child.stderr as unknown as { unref(): void }).unref();
      return guest;
    } catch (error) {
      if (why !== undefined || performance.now() > deadline) {
        child.kill();
        throw new GuestError(
          'E_GUEST_UNREACHABLE',
          `the QEMU of ${name} could not be started: ${why ?? (error instanceof Error ? error.message : String(error))}`,
          "correct the guest's command in the destination agent's configuration",
          { cause: error },
        );
      }
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, RETRY_MS))]);
    }
  }
}

async function runningGuest(qmp: string): Promise<DestGuest | undefined> {
  try {
    return await QemuDestGuest.connect(qmp);
  } catch (error) {
    const cause = error instanceof GuestError ? error.cause : undefined;
    if (cause instanceof QmpError && isNobodyThere(cause)) return undefined;
    throw error;
  }
}
