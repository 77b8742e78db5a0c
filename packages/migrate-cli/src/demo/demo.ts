/** `vmferry demo`: moves a running guest by every strategy and shows what it took. */
import { writeFile } from 'node:fs/promises';
import { messageOf } from '@vmferry/engine/errors';
import { type CommandIo, onInterrupt, write } from '../io.ts';
import { usageError } from '../reports.ts';
import { renderPage } from './page.ts';
import { type DemoResult, findQemuDemo, type QemuDemo } from './qemu-demo.ts';
import { findMissing } from './requirements.ts';
import { renderTable } from './table.ts';

export interface DemoOptions {
  readonly backend: 'auto' | 'qemu' | 'sim';
  /** Where an HTML report goes, if it is wanted. */
  readonly report?: string;
  readonly io: CommandIo;
}

/** What the two kinds of demo are made by. */
export interface DemoParts {
  /** The demo on real guests; undefined where there is none. */
  readonly findQemu: () => Promise<QemuDemo | undefined>;
  readonly simulate: RunDemo;
}

type RunDemo = QemuDemo['runQemuDemo'];

const PARTS: DemoParts = {
  findQemu: findQemuDemo,
  // Loaded when it is needed: with it come both agents.
  simulate: async (options) => (await import('./sim-demo.ts')).runSimulatedDemo(options),
};

/**
 * Gives the exit status: 0 all went well; 1 a move failed, or the guest was damaged; 2 nothing was begun;
 * 130 interrupted.
 */
export async function runDemo(options: DemoOptions, parts: DemoParts = PARTS): Promise<number> {
  const { io, backend, report } = options;
  const chosen = backend === 'sim' ? { run: parts.simulate } : await qemuDemo(io, parts);
  if ('obstacle' in chosen) {
    if (backend === 'qemu') {
      await write(io.stderr, `vmferry demo: ${chosen.obstacle}`);
      return 2;
    }
    await write(io.stderr, `${chosen.obstacle}Moving a simulated guest instead.\n`);
  }
  const result = await runToEnd('run' in chosen ? chosen.run : parts.simulate, io);
  if (result === 'interrupted') return 130;
  await write(io.stdout, renderResult(result));
  if (report !== undefined) {
    await save(report, result);
    await write(io.stdout, `report: ${report}\n`);
  }
  return isGood(result) ? 0 : 1;
}

/** The demo on real guests, or why it cannot be, with a line break at its end. */
async function qemuDemo(
  io: CommandIo,
  { findQemu }: DemoParts,
): Promise<{ readonly run: RunDemo } | { readonly obstacle: string }> {
  const missing = await findMissing(io.env);
  if (missing !== undefined) {
    return {
      obstacle:
        `real guests need what is not here: ${missing.programs.join(', ')}. As root, run:\n` +
        `  apt-get install --no-install-recommends ${missing.packages.join(' ')}\n`,
    };
  }
  const demo = await findQemu();
  if (demo) return { run: (options) => demo.runQemuDemo(options) };
  return {
    obstacle: "the demo's real guest comes with a checkout of vmferry: run `make demo` there.\n",
  };
}

async function runToEnd(run: RunDemo, io: CommandIo): Promise<DemoResult | 'interrupted'> {
  const interrupt = new AbortController();
  const stopListening = onInterrupt(io.signals, (times) => {
    if (times === 1) io.stderr.write('taking the demo down\n');
    interrupt.abort();
  });
  try {
    return await run({
      say: (line) => void io.stderr.write(`${line}\n`),
      signal: interrupt.signal,
    });
  } catch (thrown) {
    if (interrupt.signal.aborted) return 'interrupted';
    throw thrown;
  } finally {
    stopListening();
  }
}

/** With a line break at its end. */
function renderResult({ setting, moves, verdict }: DemoResult): string {
  const errors = moves.flatMap(({ strategy, report: { error } }) =>
    error === null ? [] : [`${strategy}: ${error.message} (${error.code}) ${error.remedy}`],
  );
  const lines = [...setting, ...errors, verdict.words].map((line) => `${line}\n`);
  return `\n${renderTable(moves)}\n${lines.join('')}`;
}

/** A host that cannot do post-copy, and was told so before anything was touched, is no failure of the demo. */
function isGood({ moves, verdict }: DemoResult): boolean {
  const fine = ({ report: { outcome, error } }: DemoResult['moves'][number]) =>
    outcome === 'completed' || (outcome === 'refused' && error?.code === 'E_NO_USERFAULTFD');
  return verdict.sound && moves.every(fine);
}

async function save(file: string, result: DemoResult): Promise<void> {
  try {
    await writeFile(file, renderPage(result, new Date()));
  } catch (thrown) {
    throw usageError(`--report: cannot write ${file}: ${messageOf(thrown)}`);
  }
}
