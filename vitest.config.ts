import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const root = fileURLToPath(new URL('.', import.meta.url));

// Tests run on the TypeScript sources, so that no stale build can make one pass.
const alias = [
  { find: /^@vmferry\/native\/(.*)$/, replacement: `${root}native/src/$1.ts` },
  { find: /^@vmferry\/([a-z-]+)\/(.*)$/, replacement: `${root}packages/$1/src/$2.ts` },
];

// The threads of simulated guests run what is built, which is brought up to date here.
const globalSetup = [`${root}packages/memsim/test/support/build-threads.ts`];

// What is polled for comes late on a loaded machine; by itself it is given up after a second.
const expect = { poll: { timeout: 15_000 } };

export default defineConfig({
  resolve: { alias },
  test: {
    projects: [
      {
        resolve: { alias },
        test: {
          name: 'unit',
          globalSetup,
          include: ['packages/*/test/**/*.test.ts', 'native/test/**/*.test.ts'],
          // By itself vitest leaves a core idle.
          maxWorkers: '100%',
          testTimeout: 20_000,
          expect,
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'e2e',
          globalSetup,
          include: ['test/**/*.test.ts'],
          // Every file starts virtual machines: two cores carry one file at a time, of some kinds two (scripts/test.mjs).
          maxWorkers: Number(process.env['VMFERRY_TEST_FILES'] ?? 1),
          sequence: { groupOrder: 1 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
          expect,
        },
      },
    ],
  },
});
