import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root, from the sources as from `test/dist`. */
export function repoRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'pnpm-workspace.yaml'))) {
    const parent = dirname(dir);
    if (parent === dir) throw new Error('no pnpm-workspace.yaml above test/rig');
    dir = parent;
  }
  return dir;
}

/** A file of the test folder by its path in the sources, such as `guest/verifier.c`. */
export function testFile(path: string): string {
  return join(repoRoot(), 'test', path);
}
