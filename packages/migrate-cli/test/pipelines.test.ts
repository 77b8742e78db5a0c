/** The pipelines of the documentation: what they call must be there. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { libraryNames } from '@vmferry/memsim/guest-file/library';
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { addMigrateCommand } from '../src/commands/migrate.ts';
import type { CommandContext } from '../src/context.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const text = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8');
const [, github, gitlab] = [...text('docs/memsim.md').matchAll(/```yaml\n(.*?)```/gs)].map(([, block]) =>
  parse(block!),
) as [unknown, Workflow, Pipeline];

type Matrix = Readonly<Record<string, readonly string[]>>;

interface Step {
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly if?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Workflow {
  readonly on: readonly string[];
  readonly jobs: {
    readonly migrate: {
      readonly 'runs-on': string;
      readonly 'timeout-minutes': number;
      readonly strategy: {
        readonly matrix: {
          readonly guest: readonly string[];
          readonly strategy: readonly string[];
          readonly exclude: readonly Readonly<Record<string, string>>[];
        };
      };
      readonly steps: readonly Step[];
    };
  };
}

interface Pipeline {
  readonly 'simulated migrations': {
    readonly image: string;
    readonly parallel: { readonly matrix: readonly Matrix[] };
    readonly before_script: readonly string[];
    readonly script: readonly string[];
    readonly artifacts: {
      readonly when: string;
      readonly paths: readonly string[];
      readonly reports: { readonly junit: string };
    };
  };
}

/** As commander reads it: an option that is not there or a value that is not one throws. */
function readMigrate(line: string): { readonly guest: string; readonly options: Record<string, unknown> } {
  const program = new Command('vmferry').exitOverride();
  addMigrateCommand(program, {} as CommandContext);
  const command = program.commands[0]!.exitOverride();
  const words = line.split(/\s+/).map((word) => word.replaceAll('"', ''));
  expect(words[1]).toBe('migrate');
  const { operands, unknown } = command.parseOptions(words.slice(2));
  expect(unknown).toEqual([]);
  expect(operands).toHaveLength(1);
  return { guest: operands[0]!, options: command.opts() };
}

function isLibraryGuest(uri: string): boolean {
  return uri.startsWith('sim:') && libraryNames.includes(uri.slice('sim:'.length));
}

function scriptsOf(lines: string): readonly string[] {
  return [...lines.matchAll(/scripts\/\w+/g)].map(([script]) => script);
}

describe('the workflow for GitHub', () => {
  const job = github.jobs.migrate;
  const { guest: guests, strategy: strategies, exclude } = job.strategy.matrix;
  const runs = job.steps.flatMap(({ run }) => run ?? []);

  it('has steps that each use an action of a version or run something', () => {
    expect(github.on).toEqual(['push', 'pull_request']);
    expect(job['runs-on']).toMatch(/^ubuntu-/);
    for (const { uses, run } of job.steps) {
      expect([uses, run].filter((what) => what !== undefined)).toHaveLength(1);
      if (uses !== undefined) expect(uses).toMatch(/^actions\/[\w-]+@v\d+$/);
    }
  });

  it('installs what building needs, by scripts that are there', () => {
    const needed = /build_packages=\(([^)]*)\)/.exec(text('scripts/setup'))![1]!.split(' ');
    for (const name of needed) expect(runs.join(' ').split(/\s+/)).toContain(name);
    for (const script of scriptsOf(runs.join('\n'))) accessSync(`${ROOT}${script}`, constants.X_OK);
    expect(scriptsOf(runs.join('\n'))).toEqual(['scripts/setup', 'scripts/build']);
  });

  it('moves guests of the library by options that there are', () => {
    const line = runs.find((run) => run.startsWith('./vmferry'))!;
    accessSync(`${ROOT}vmferry`, constants.X_OK);
    for (const guest of guests) {
      for (const strategy of strategies) {
        const said = line.replace(/\$\{\{ matrix\.(\w+) \}\}/g, (_, key) =>
          key === 'guest' ? guest : strategy,
        );
        expect(said).not.toContain('${{');
        const { guest: uri, options } = readMigrate(said);
        expect(isLibraryGuest(uri)).toBe(true);
        expect(options).toMatchObject({ strategy, deadline: 120_000, junit: 'junit.xml' });
      }
    }
    for (const { guest, strategy } of exclude) {
      expect(guests).toContain(guest);
      expect(strategies).toContain(strategy);
    }
  });

  it('keeps the files that the command writes, whatever came of it', () => {
    const keep = job.steps.find(({ uses }) => uses?.startsWith('actions/upload-artifact'))!;
    expect(keep.if).toBe('always()');
    expect(String(keep.with?.['path']).trim().split('\n')).toEqual(['junit.xml', 'events.jsonl']);
  });
});

describe('the pipeline for GitLab', () => {
  const job = gitlab['simulated migrations'];

  it('builds by scripts that are there', () => {
    expect(job.image).toMatch(/^node:(2\d)-/);
    const scripts = scriptsOf(job.before_script.join('\n'));
    expect(scripts).toEqual(['scripts/setup', 'scripts/build']);
    for (const script of scripts) accessSync(`${ROOT}${script}`, constants.X_OK);
  });

  it('moves guests of the library by options that there are', () => {
    const line = job.script.join('\n');
    for (const { GUEST, STRATEGY } of job.parallel.matrix) {
      for (const guest of GUEST!) {
        for (const strategy of STRATEGY!) {
          const said = line.replaceAll('$GUEST', guest).replaceAll('$STRATEGY', strategy);
          const { guest: uri, options } = readMigrate(said);
          expect(isLibraryGuest(uri)).toBe(true);
          expect(options).toMatchObject({ strategy, deadline: 120_000 });
        }
      }
    }
  });

  it('shows the report that the command writes', () => {
    const { options } = readMigrate(job.script.join('\n').replaceAll('$STRATEGY', 'auto'));
    expect(job.artifacts.reports.junit).toBe(options['junit']);
    expect(job.artifacts.paths).toEqual([options['events']]);
    expect(job.artifacts.when).toBe('always');
  });
});
