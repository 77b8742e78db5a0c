/** Node runs no TypeScript: the vCPUs' threads need the package's build, and tests need the one of these sources. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export async function setup(): Promise<void> {
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  await promisify(execFile)('node_modules/.bin/tsc', ['-b', 'packages/memsim'], { cwd: root });
}
