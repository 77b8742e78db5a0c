/** Real QEMU processes, started and asked by the shortest way. */
import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { QEMU } from '../binary.ts';
import { guestRom } from './guest-rom.ts';

type Json = Record<string, unknown>;

export interface QemuOptions {
  readonly memoryMiB: number;
  /** Where the guest's writing ends, in bytes. */
  readonly top: number;
  readonly args?: readonly string[];
}

export interface Version {
  readonly major: number;
  readonly minor: number;
}

export class Qemu {
  readonly dir: string;
  readonly memoryBytes: number;
  readonly #child: ChildProcess;
  readonly #qmp: Socket;
  readonly #events = new EventEmitter();
  readonly #waiting = new Map<number, { resolve(value: Json): void; reject(error: Error): void }>();
  /** Events that came, as `waitFor` may be called after one. */
  readonly #seen: Json[] = [];
  #nextId = 1;
  #stderr = '';

  static async start(options: QemuOptions): Promise<Qemu> {
    const dir = await mkdtemp(join(tmpdir(), 'vmferry-stream-'));
    await writeFile(join(dir, 'rom.bin'), guestRom(options.top));
    const server = createServer();
    server.listen(join(dir, 'qmp.sock'));
    await once(server, 'listening');
    const child = spawn(
      QEMU,
      [
        ...['-accel', 'tcg', '-nodefaults', '-display', 'none', '-vga', 'none', '-m', `${options.memoryMiB}`],
        ...['-bios', join(dir, 'rom.bin'), '-serial', 'stdio', '-qmp', `unix:${join(dir, 'qmp.sock')}`],
        ...(options.args ?? []),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const failed = once(child, 'error').then(([error]) => Promise.reject(error));
    const exited = once(child, 'exit').then(([code]) => Promise.reject(new Error(`QEMU ended with ${code}`)));
    const connected = Promise.race([once(server, 'connection'), failed, exited]).finally(() =>
      server.close(),
    );
    const [qmp] = (await connected) as [Socket];
    failed.catch(() => {});
    exited.catch(() => {});
    const qemu = new Qemu(dir, options.memoryMiB * 2 ** 20, child, qmp);
    await qemu.run('qmp_capabilities');
    await qemu.capability('events');
    return qemu;
  }

  private constructor(dir: string, memoryBytes: number, child: ChildProcess, qmp: Socket) {
    this.dir = dir;
    this.memoryBytes = memoryBytes;
    this.#child = child;
    this.#qmp = qmp;
    child.stderr!.on('data', (data: Buffer) => {
      this.#stderr += data.toString();
    });
    child.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`QEMU is gone: ${this.#stderr}`));
    });
    // A QEMU that is killed resets the connection; its end is told by its exit. The lines' reader tells it again.
    qmp.on('error', () => {});
    createInterface(qmp)
      .on('line', (line) => this.#onLine(JSON.parse(line) as Json))
      .on('error', () => {});
  }

  #onLine(message: Json): void {
    if (typeof message['event'] === 'string') {
      this.#seen.push(message);
      this.#events.emit('event', message);
      return;
    }
    const waiting = this.#waiting.get(message['id'] as number);
    if (waiting === undefined) return;
    this.#waiting.delete(message['id'] as number);
    if (message['error'] === undefined) waiting.resolve(message['return'] as Json);
    else waiting.reject(new Error(`${JSON.stringify(message['error'])} ${this.#stderr}`));
  }

  run(execute: string, args: Json = {}): Promise<Json> {
    const id = this.#nextId++;
    this.#qmp.write(`${JSON.stringify({ execute, arguments: args, id })}\n`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  async version(): Promise<Version> {
    return (await this.run('query-version'))['qemu'] as Version;
  }

  async capability(capability: string): Promise<void> {
    await this.run('migrate-set-capabilities', { capabilities: [{ capability, state: true }] });
  }

  /** The first event of this name, past or to come, whose data fits. */
  async waitFor(name: string, fits: (data: Json) => boolean = () => true): Promise<void> {
    // Several events may come at once, so those seen are the only ones to be looked at.
    for (let next = 0; ; next++) {
      while (next >= this.#seen.length) await once(this.#events, 'event');
      const event = this.#seen[next]!;
      if (event['event'] === name && fits((event['data'] ?? {}) as Json)) return;
    }
  }

  async migrationStatus(status: string): Promise<void> {
    await this.waitFor('MIGRATION', (data) => {
      if (data['status'] === 'failed') throw new Error(`The migration failed: ${this.#stderr}`);
      return data['status'] === status;
    });
  }

  /** The guest has gone over its memory. */
  async firstPass(): Promise<void> {
    await once(this.#child.stdout!, 'data');
    this.#child.stdout!.resume();
  }

  async memory(): Promise<Buffer> {
    const path = join(this.dir, 'memory.bin');
    await this.run('pmemsave', { val: 0, size: this.memoryBytes, filename: path });
    return readFile(path);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await gone;
    }
    this.#qmp.destroy();
    await rm(this.dir, { recursive: true, force: true });
  }
}
