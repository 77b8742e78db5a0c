import type { CommandIo } from '../io.ts';

export interface DemoOptions {
  readonly backend: 'auto' | 'qemu' | 'sim';
  /** Where an HTML report goes, if it is wanted. */
  readonly report?: string;
  readonly io: CommandIo;
}

/** Gives the exit status. */
export async function runDemo(options: DemoOptions): Promise<number> {
  options.io.stderr.write('vmferry demo is not built into this version\n');
  return 2;
}
