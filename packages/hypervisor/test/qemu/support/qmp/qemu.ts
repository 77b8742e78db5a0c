import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { QmpClient } from '../../../../src/qemu/qmp/client.ts';
import { QmpError } from '../../../../src/qemu/qmp/errors.ts';
import { QEMU } from '../binary.ts';

export interface StartOptions {
  /** Runs QEMU as this user. */
  readonly uid?: number;
}

/** A real QEMU under TCG, its vCPUs stopped (-S). Where QEMU is not installed, starting it fails. */
export class TestQemu {
  private constructor(
    readonly qmpPath: string,
    readonly client: QmpClient,
    readonly process: ChildProcess,
    readonly folder: string,
  ) {}

  static async start(args: readonly string[] = [], options: StartOptions = {}): Promise<TestQemu> {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-qemu-'));
    await chmod(folder, 0o777);
    const path = join(folder, 'qmp.sock');
    const fixed = ['-accel', 'tcg', '-display', 'none', '-S', '-nodefaults'];
    const machine = args.includes('-machine') ? [] : ['-machine', 'pc'];
    const child = spawn(QEMU, [...machine, ...fixed, '-qmp', `unix:${path},server=on,wait=off`, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      ...options,
    });
    let complaint = '';
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      complaint += text;
    });
    const failed = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (status) => reject(new Error(`QEMU ended with ${status}: ${complaint}`)));
    });
    // Also when the failure comes after the start is over.
    failed.catch(() => {});
    try {
      const client = await Promise.race([failed, connectWhenUp(path)]);
      return new TestQemu(path, client, child, folder);
    } catch (error) {
      child.kill('SIGKILL');
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.client.close();
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const gone = once(this.process, 'exit');
      this.process.kill('SIGKILL');
      await gone;
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

async function connectWhenUp(path: string): Promise<QmpClient> {
  for (const end = Date.now() + 10_000; ; ) {
    try {
      return await QmpClient.connect(path);
    } catch (error) {
      const early = error instanceof QmpError && ['E_QMP_NOT_FOUND', 'E_QMP_REFUSED'].includes(error.code);
      if (!early || Date.now() > end) throw error;
      // There is no event for a socket that another process makes.
      await delay(10);
    }
  }
}
