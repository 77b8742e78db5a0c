/**
 * Lets a plain Node process run the workspace's TypeScript sources, for programs that a test starts in
 * another network namespace. `node --import THIS_FILE program.ts`
 */
import { readFile } from 'node:fs/promises';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import ts from 'typescript';

const root = new URL('../../../../../', import.meta.url);

// The same module is imported by the program's thread and loaded as hooks in a thread of their own.
if (isMainThread) register(import.meta.url);

export async function resolve(specifier, context, next) {
  const [, part, module] = /^@vmferry\/([a-z-]+)\/(.*)$/.exec(specifier) ?? [];
  if (part === undefined) return next(specifier, context);
  const folder = part === 'native' ? 'native' : `packages/${part}`;
  return next(new URL(`${folder}/src/${module}.ts`, root).href, context);
}

export async function load(url, context, next) {
  if (!url.endsWith('.ts')) return next(url, context);
  const fileName = fileURLToPath(url);
  const { outputText } = ts.transpileModule(await readFile(fileName, 'utf8'), {
    fileName,
    compilerOptions: {
      module: ts.ModuleKind.ESNext,
      target: ts.ScriptTarget.ES2023,
      verbatimModuleSyntax: true,
    },
  });
  return { format: 'module', source: outputText, shortCircuit: true };
}
