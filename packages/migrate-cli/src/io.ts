/** What the command has of the world, handed in so that tests run it in their own process. */
import type { Writable } from 'node:stream';

/** Standard output or error. The terminal's fields are there only when it is one. */
export type Output = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** What asks a command to end: SIGHUP comes from a terminal that was closed, or a connection to it that broke. */
const INTERRUPTS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type Interrupt = (typeof INTERRUPTS)[number];

/** Where they come from: `process`, or a test's emitter. */
export interface SignalSource {
  on(signal: Interrupt, listener: () => void): unknown;
  off(signal: Interrupt, listener: () => void): unknown;
}

export interface CommandIo {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: NodeJS.ProcessEnv;
  readonly signals: SignalSource;
}

/** A pipe without a reader, or a terminal that was closed. */
const READER_GONE: readonly unknown[] = ['EPIPE', 'EIO'];

/** Resolves when the text was taken; a reader that went away is not an error of ours. */
export function write(output: Output, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    output.write(text, (error) => {
      if (error && !('code' in error && READER_GONE.includes(error.code))) reject(error);
      else resolve();
    });
  });
}

/** Calls `listener` with how often it was called so far, from 1, for each signal that asks for the end. */
export function onInterrupt(signals: SignalSource, listener: (times: number) => void): () => void {
  let times = 0;
  const heard = () => listener(++times);
  for (const signal of INTERRUPTS) signals.on(signal, heard);
  return () => {
    for (const signal of INTERRUPTS) signals.off(signal, heard);
  };
}
