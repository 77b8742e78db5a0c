/** What the command has of the world, handed in so that tests run it in their own process. */
import type { Writable } from 'node:stream';

/** Standard output or error. The terminal's fields are there only when it is one. */
export type Output = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** Where SIGINT and SIGTERM come from: `process`, or a test's emitter. */
export interface SignalSource {
  on(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
  off(signal: 'SIGINT' | 'SIGTERM', listener: () => void): unknown;
}

export interface CommandIo {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: NodeJS.ProcessEnv;
  readonly signals: SignalSource;
}

/** Resolves when the text was taken; a reader that went away (EPIPE) is not an error of ours. */
export function write(output: Output, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    output.write(text, (error) => {
      if (error && !('code' in error && error.code === 'EPIPE')) reject(error);
      else resolve();
    });
  });
}

/** Calls `listener` with how often it was called so far, from 1, for each SIGINT or SIGTERM. */
export function onInterrupt(signals: SignalSource, listener: (times: number) => void): () => void {
  let times = 0;
  const heard = () => listener(++times);
  signals.on('SIGINT', heard);
  signals.on('SIGTERM', heard);
  return () => {
    signals.off('SIGINT', heard);
    signals.off('SIGTERM', heard);
  };
}
