import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'fake' }, capabilities: ['oob'] },
};

export interface Request {
  readonly execute?: string;
  readonly 'exec-oob'?: string;
  readonly arguments?: Record<string, unknown>;
  readonly id: string;
}

export const nameOf = (request: Request): string => request.execute ?? request['exec-oob'] ?? '';

/** A monitor whose every byte the test decides on. `qmp_capabilities` is answered by itself. */
export class FakeMonitor {
  readonly requests: Request[] = [];
  readonly path: string;
  socket: Socket | undefined;
  readonly #server: Server;
  readonly #folder: string;
  #onRequest: (request: Request) => void = () => {};

  private constructor(folder: string, server: Server) {
    this.#folder = folder;
    this.path = join(folder, 'qmp.sock');
    this.#server = server;
  }

  /** `greeting` is written to every client as it is; null writes nothing. */
  static async start(greeting: string | null = `${JSON.stringify(GREETING)}\r\n`): Promise<FakeMonitor> {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-qmp-'));
    const server = createServer();
    const monitor = new FakeMonitor(folder, server);
    server.on('connection', (socket) => monitor.#serve(socket, greeting));
    server.listen(monitor.path);
    await once(server, 'listening');
    return monitor;
  }

  /** Called with every command but `qmp_capabilities`. */
  onRequest(handler: (request: Request) => void): void {
    this.#onRequest = handler;
  }

  write(bytes: string | Buffer): void {
    this.socket!.write(bytes);
  }

  send(message: unknown): void {
    this.write(`${JSON.stringify(message)}\r\n`);
  }

  /** Answers the commands named in `replies` with the value there, or with what it throws. */
  answer(replies: Record<string, (args: Record<string, unknown>) => unknown>): void {
    this.onRequest((request) => {
      const reply = replies[nameOf(request)];
      if (!reply) {
        const desc = `The command ${nameOf(request)} has not been found`;
        this.send({ error: { class: 'CommandNotFound', desc }, id: request.id });
        return;
      }
      try {
        this.send({ return: reply(request.arguments ?? {}), id: request.id });
      } catch (error) {
        this.send({ error: { class: 'GenericError', desc: (error as Error).message }, id: request.id });
      }
    });
  }

  /** Ends its connection and takes no other. */
  refuse(): void {
    this.#server.close();
    this.socket?.destroy();
  }

  async stop(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, 'close') : undefined;
    this.refuse();
    await closed;
    await rm(this.#folder, { recursive: true });
  }

  #serve(socket: Socket, greeting: string | null): void {
    this.socket = socket;
    socket.on('error', () => {});
    if (greeting !== null) socket.write(greeting);
    let rest = '';
    socket.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#take(JSON.parse(line) as Request);
    });
  }

  #take(request: Request): void {
    this.requests.push(request);
    if (nameOf(request) === 'qmp_capabilities') this.send({ return: {}, id: request.id });
    else this.#onRequest(request);
  }
}
