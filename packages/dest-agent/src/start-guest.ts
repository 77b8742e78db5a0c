/** Starts the QEMU of a guest from the agent's own configuration. Nothing of it comes from a peer. */
import { type ChildProcess, spawn } from 'node:child_process';
import { GuestError, messageOf } from '@vmferry/engine/errors';
import type { DestGuest } from '@vmferry/engine/guest';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import { isNobodyThere, QmpError } from '@vmferry/hypervisor/qemu/qmp/errors';

const START_TIMEOUT_MS = 15_000;
const RETRY_MS = 20;
const STDERR_BYTES = 4096;
const LAST_WORDS_MS = 500;

/** The QEMU outlives the agent, as a guest must; one that takes no guest in ends again. */
export async function startGuest(name: string, qmp: string, command: readonly string[]): Promise<DestGuest> {
  // One that is there already keeps its monitor: a second would take the socket's path from it.
  const found = await runningGuest(qmp);
  if (found) return found;
  const { child, ended } = launch(name, command);
  let why: string | undefined;
  void ended.then((reason) => {
    why = reason;
  });
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      const guest = await QemuDestGuest.connect(qmp, { endUnused: true });
      child.unref();
      (child.stderr as unknown as { unref(): void } | null)?.unref();
      return guest;
    } catch (error) {
      if (why !== undefined || performance.now() > deadline) {
        child.kill();
        throw notStarted(name, why ?? messageOf(error), error);
      }
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, RETRY_MS))]);
    }
  }
}

interface Launched {
  readonly child: ChildProcess;
  /** Why it runs no more, or never did. Never rejects. */
  readonly ended: Promise<string>;
}

function launch(name: string, command: readonly string[]): Launched {
  const [program, ...args] = command as [string, ...string[]];
  let child: ChildProcess;
  try {
    child = spawn(program, args, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    // What Node does not leave to the event: a NUL byte in an argument, or too many of them.
    throw notStarted(name, messageOf(error), error);
  }
  let said = '';
  // A process for which there were no descriptors left has none.
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-STDERR_BYTES);
  });
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => {
      const how = code === null ? `signal ${signal}` : `status ${code}`;
      const tell = (): void => resolve(`it ended with ${how}: ${said.trim()}`);
      // What it said last may be read after its end; who it left behind may go on saying more.
      child.once('close', tell);
      setTimeout(tell, LAST_WORDS_MS).unref();
    });
  });
  return { child, ended };
}

function notStarted(name: string, why: string, cause: unknown): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `the QEMU of ${name} could not be started: ${why}`,
    "correct the guest's command in the destination agent's configuration",
    { cause },
  );
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
