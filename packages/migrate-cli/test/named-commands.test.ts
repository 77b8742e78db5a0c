/** Whatever errors and documents tell people to type is there to be typed. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import type { CommandContext } from '../src/context.ts';
import { commands } from '../src/run.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
/** Another program's (apt-get), and a variable that is counted down. */
const FOREIGN = ['--no-install-recommends', '--budget'];
/** What virsh is told is virsh's to know. */
const VIRSH = /virsh\}? (?:\$\{[^}]*\}|[^"'`,;)\n])*/g;

const program = commands({ io: process } as unknown as CommandContext);
const names = program.commands.map((command) => command.name());
const options = [program, ...program.commands]
  .flatMap((command: Command) => command.options)
  .flatMap(({ long }) => long ?? []);

function filesOf(folder: string, suffix: string): string[] {
  const found = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  return found
    .filter((entry) => entry.isFile() && entry.name.endsWith(suffix))
    .map((entry) => join(entry.parentPath, entry.name));
}

const sources = readdirSync(join(root, 'packages')).flatMap((name) => filesOf(`packages/${name}/src`, '.ts'));
const documents = [
  ...filesOf('docs', '.md'),
  ...['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'].map((name) => join(root, name)),
];

/** As `file: what`. */
function found(files: readonly string[], ...patterns: readonly RegExp[]): [where: string, what: string][] {
  return files.flatMap((file) => {
    const text = readFileSync(file, 'utf8').replaceAll(VIRSH, '');
    return patterns
      .flatMap((pattern) => [...text.matchAll(pattern)])
      .map((match): [string, string] => [relative(root, file), match[1]!]);
  });
}

test('every `vmferry COMMAND` that an error, a comment or a document names is a command', () => {
  const inQuotes = /`(?:\.\/)?vmferry ([a-z]+)\b[^`$]*`/g;
  const typed = /^ {4,}(?:\.\/)?vmferry ([a-z]+)\b/gm;
  const named = [...found(sources, inQuotes), ...found(documents, inQuotes, typed)];
  expect(named.length).toBeGreaterThan(30);
  expect(named.filter(([, name]) => !names.includes(name))).toEqual([]);
});

test('every option that the code or the README names is one of vmferry\u2019s', () => {
  const option = /[\s'"`(](--[a-z][a-z-]+)/g;
  const named = found([...sources, join(root, 'README.md')], option);
  expect(named.length).toBeGreaterThan(50);
  const known = [...options, '--help', '--version', ...FOREIGN];
  expect(named.filter(([, name]) => !known.includes(name))).toEqual([]);
});
