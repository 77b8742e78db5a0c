import { randomBytes } from 'node:crypto';
import { QmpError } from './errors.ts';
import type { QmpMessage } from './message.ts';
import { after, inWords } from './timer.ts';

/**
 * QEMU queues eight commands and then stops reading its socket, out-of-band commands included. One place
 * stays free so that those always get through.
 */
const MAX_IN_FLIGHT = 7;

export type QmpArguments = Readonly<Record<string, unknown>>;

interface Command {
  readonly id: string;
  readonly name: string;
  readonly line: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: QmpError) => void;
  readonly stopTimer: () => void;
}

/** The commands that wait for their turn and those that wait for their answer. */
export class CommandQueue {
  readonly #write: (line: string) => void;
  /** A monitor may still answer a command of the client before this one: ids must not look like its ids. */
  readonly #idPrefix = `vmferry-${randomBytes(6).toString('hex')}-`;
  #nextId = 1;
  /** Sent and not answered, or given up and not answered (`undefined`): those hold a place in QEMU's queue. */
  readonly #inFlight = new Map<string, Command | undefined>();
  readonly #waiting: Command[] = [];

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  run(name: string, args: QmpArguments | undefined, oob: boolean, timeoutMs: number): Promise<unknown> {
    const id = `${this.#idPrefix}${this.#nextId++}`;
    const line = `${JSON.stringify({ [oob ? 'exec-oob' : 'execute']: name, arguments: args, id })}\n`;
    return new Promise((resolve, reject) => {
      const stopTimer = after(timeoutMs, () => this.#giveUp(id, name, timeoutMs));
      const command = { id, name, line, resolve, reject, stopTimer };
      if (oob) this.#send(command);
      else {
        this.#waiting.push(command);
        this.#sendWaiting();
      }
    });
  }

  /** False if it cannot be told which command the answer belongs to. */
  answer(message: Exclude<QmpMessage, { type: 'event' }>): boolean {
    // QEMU leaves the id out where it could not read the command. With one in flight it is clear which.
    const only = this.#inFlight.size === 1 ? this.#inFlight.keys().next().value : undefined;
    const id = message.id ?? only;
    if (id === undefined) return false;
    // An answer to the client before this one is none of ours.
    if (typeof id !== 'string' || !this.#inFlight.has(id)) return true;
    const command = this.#inFlight.get(id);
    this.#inFlight.delete(id);
    if (command) {
      command.stopTimer();
      if (message.type === 'return') command.resolve(message.value);
      else command.reject(refused(command.name, message.class, message.desc));
    }
    this.#sendWaiting();
    return true;
  }

  /** Rejects all that is left, each naming all. */
  abandon(cause: QmpError): void {
    const pending = [...this.#inFlight.values(), ...this.#waiting].filter((command) => command !== undefined);
    const names = pending.map((command) => command.name).join(', ');
    this.#inFlight.clear();
    this.#waiting.length = 0;
    for (const command of pending) {
      command.stopTimer();
      const text = `${cause.message}; waiting for an answer: ${names}`;
      command.reject(new QmpError('E_QMP_CLOSED', text, { command: names }, { cause }));
    }
  }

  #send(command: Command): void {
    this.#inFlight.set(command.id, command);
    this.#write(command.line);
  }

  #sendWaiting(): void {
    while (this.#waiting.length > 0 && this.#inFlight.size < MAX_IN_FLIGHT)
      this.#send(this.#waiting.shift()!);
  }

  #giveUp(id: string, name: string, timeoutMs: number): void {
    const sent = this.#inFlight.get(id);
    const at = this.#waiting.findIndex((command) => command.id === id);
    const command = sent ?? this.#waiting[at];
    if (sent) this.#inFlight.set(id, undefined);
    else if (at !== -1) this.#waiting.splice(at, 1);
    const text = sent
      ? `QEMU did not answer ${name} within ${inWords(timeoutMs)}`
      : `${name} was not sent within ${inWords(timeoutMs)}: QEMU does not answer the commands before it`;
    command?.reject(new QmpError('E_QMP_TIMEOUT', text, { command: name }));
  }
}

function refused(command: string, className: string, desc: string): QmpError {
  return new QmpError('E_QMP_COMMAND', `QEMU refused ${command}: ${desc}`, { class: className, command });
}
