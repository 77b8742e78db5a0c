// Builds the addon with the address and undefined-behaviour sanitizers, beside the ordinary build, and runs the
// package's tests on it. Any finding ends the process that made it, and so fails the tests.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const native = dirname(dirname(fileURLToPath(import.meta.url)));
const build = join(native, '.cache', 'sanitize');
mkdirSync(build, { recursive: true });
for (const part of ['binding.gyp', 'package.json', 'cc']) {
  cpSync(join(native, part), join(build, part), { recursive: true });
}
// Node's own headers where they came with it, as scripts/build does.
const node = dirname(dirname(realpathSync(process.execPath)));
const headers = existsSync(join(node, 'include/node/node_api.h')) ? [`--nodedir=${node}`] : [];
execFileSync(join(native, 'node_modules/.bin/node-gyp'), ['rebuild', '-j', 'max', '--silent', ...headers], {
  cwd: build,
  env: { ...process.env, SANITIZE: '1' },
  stdio: 'inherit',
});

// The runtime has to be in the process before Node is; libstdc++ with it, so that it can follow exceptions; and the
// library that libvirt speaks XDR with, or the runtime, which stands in front of its functions, does not find them.
const preload = ['libasan.so', 'libstdc++.so.6', 'libtirpc.so.3']
  .map((library) => execFileSync('g++', [`-print-file-name=${library}`], { encoding: 'utf8' }).trim())
  // What is not there comes back as it went.
  .filter(isAbsolute);
const { status } = spawnSync(
  process.execPath,
  [
    join(native, '../node_modules/vitest/vitest.mjs'),
    'run',
    '--project',
    'unit',
    'native',
    ...process.argv.slice(2),
  ],
  {
    cwd: join(native, '..'),
    env: {
      ...process.env,
      VMFERRY_NATIVE_ADDON: join(build, 'build/Release/vmferry.node'),
      LD_PRELOAD: preload.join(':'),
      // Node itself leaves memory to the exit, so leaks cannot be told apart.
      ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    },
    stdio: 'inherit',
  },
);
process.exit(status ?? 1);
