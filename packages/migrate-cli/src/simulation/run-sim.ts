/** `vmferry sim`: one scenario, or a sweep. */
import { constants } from 'node:fs';
import { access, open, realpath, writeFile } from 'node:fs/promises';
import { basename, dirname, extname } from 'node:path';
import { messageOf } from '@vmferry/engine/errors';
import type { Strategy } from '@vmferry/engine/options';
import { exitStatus } from '@vmferry/engine/report/report';
import { forecasts, recommend } from '@vmferry/memsim/forecast/strategies';
import { sweepPage } from '@vmferry/memsim/page/sweep-page';
import { compare } from '@vmferry/memsim/scenario/expectations';
import { loadScenario, loadSweep } from '@vmferry/memsim/scenario/load';
import { simulate } from '@vmferry/memsim/simulator/simulate';
import { csvOf } from '@vmferry/memsim/sweep/csv';
import { runSweep } from '@vmferry/memsim/sweep/run-sweep';
import type { CommandContext } from '../context.ts';
import { write } from '../io.ts';
import { usageError } from '../reports.ts';
import { withFileErrors } from './errors.ts';
import { renderComparisons, renderForecasts, renderResult, renderSetting, renderSweep } from './tables.ts';

export interface SimOptions {
  readonly strategy?: Strategy;
  readonly compare?: boolean;
  readonly sweep?: string;
  readonly out?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Gives the exit status: that of the migration, and 1 where a figure is not what the scenario expects. */
export async function runSim(
  path: string | undefined,
  options: SimOptions,
  context: CommandContext,
): Promise<number> {
  if (options.sweep !== undefined) {
    if (path !== undefined) throw usageError('give a scenario, or --sweep with a file, not both');
    if (options.strategy !== undefined || options.compare === true)
      throw usageError('a sweep names its strategies itself');
    if (options.threads === 0) throw usageError('--threads: at least 1');
    return await sweep(options.sweep, options, context);
  }
  if (path === undefined) throw usageError('name a scenario, or a sweep with --sweep');
  if (options.out !== undefined || options.threads !== undefined)
    throw usageError('--out and --threads belong to --sweep');
  return await scenario(path, options, context);
}

async function scenario(path: string, options: SimOptions, { io }: CommandContext): Promise<number> {
  const { name, file, simulation } = withFileErrors(() => loadScenario(path));
  if (options.compare === true) {
    if (options.strategy !== undefined) throw usageError('--compare simulates every strategy');
    const all = forecasts(simulation);
    const recommended = recommend(all);
    const text =
      options.json === true
        ? `${JSON.stringify({
            schema: 1,
            name,
            recommended,
            strategies: all.map(({ strategy, result, obstacle }) => ({
              strategy,
              obstacle: obstacle ?? null,
              report: result.report,
            })),
          })}\n`
        : `${name}\n${renderSetting(simulation)}\n${renderForecasts(all)}\n${recommended.strategy}: ${recommended.why}\n`;
    await write(io.stdout, text);
    return 0;
  }
  const asked =
    options.strategy === undefined
      ? simulation
      : { ...simulation, request: { ...simulation.request, strategy: options.strategy } };
  const result = simulate(asked);
  const comparisons = compare(file.expect, result);
  if (options.json === true) {
    const { report, series, decisions, finalBytes, postcopy } = result;
    const more = { name, finalBytes, postcopy: postcopy ?? null, decisions, series, comparisons };
    await write(io.stdout, `${JSON.stringify({ ...report, simulation: more })}\n`);
  } else {
    const expected = comparisons.length === 0 ? '' : `\n${renderComparisons(comparisons)}`;
    await write(io.stdout, `${name}\n${renderSetting(asked)}\n${renderResult(result)}${expected}`);
  }
  const status = exitStatus(result.report);
  return status === 0 && !comparisons.every(({ holds }) => holds) ? 1 : status;
}

async function sweep(path: string, options: SimOptions, { io }: CommandContext): Promise<number> {
  const { name, file, runs } = withFileErrors(() => loadSweep(path));
  const prefix = options.out ?? basename(path, extname(path));
  const files = { json: `${prefix}.json`, csv: `${prefix}.csv`, html: `${prefix}.html` };
  // A sweep may take a minute: what keeps it from being kept is told before.
  for (const each of Object.values(files)) await refuseUnwritable(each, path);
  const began = performance.now();
  const terminal = io.stderr.isTTY === true;
  const result = await runSweep(runs, {
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(terminal
      ? { onProgress: (done: number) => void io.stderr.write(`\r${done} of ${runs.length} migrations`) }
      : {}),
  });
  if (terminal) io.stderr.write('\r\u001b[K');
  const seconds = (performance.now() - began) / 1000;
  await save(
    files.json,
    `${JSON.stringify({ schema: 1, name, runs: result.rows, courses: result.courses })}\n`,
  );
  await save(files.csv, csvOf(result.rows));
  await save(files.html, sweepPage({ name, about: file.about, result, at: new Date() }));
  const text =
    options.json === true
      ? `${JSON.stringify({ schema: 1, name, runs: result.rows.length, seconds, files })}\n`
      : `${name}: ${result.rows.length} migrations in ${seconds.toFixed(1)} s; medians of those that completed:\n\n` +
        `${renderSweep(result.rows)}\n${Object.values(files).join(', ')}\n`;
  await write(io.stdout, text);
  return 0;
}

/** Leaves nothing behind and changes nothing. */
async function refuseUnwritable(file: string, sweepFile: string): Promise<void> {
  const there = await realpath(file).catch(() => undefined);
  if (there !== undefined && there === (await realpath(sweepFile)))
    throw usageError(`--out: ${file} is the sweep itself, which would be overwritten: choose another prefix`);
  try {
    if (there === undefined) await access(dirname(file), constants.W_OK);
    else await (await open(file, constants.O_WRONLY)).close();
  } catch (thrown) {
    throw unwritable(file, thrown);
  }
}

async function save(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text);
  } catch (thrown) {
    throw unwritable(file, thrown);
  }
}

function unwritable(file: string, thrown: unknown): Error {
  return usageError(`--out: cannot write ${file}: ${messageOf(thrown)}`);
}
