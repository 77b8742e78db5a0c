/** A plan measures a real guest and a real agent, and leaves both as they were. */
import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { run } from '@vmferry/migrate-cli/run';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { nextPass, startBootSector } from '../guest/boot-sector.ts';
import type { QemuProcess } from '../rig/qemu.ts';
import { type Agents, startAgents } from './agents.ts';
import { settingsOf } from './traces.ts';

let agents: Agents;
let guest: QemuProcess;

beforeAll(async () => {
  agents = await startAgents();
  guest = await startBootSector({}, { name: 'guest' });
});
afterAll(async () => {
  await guest?.stop();
  await agents?.close();
});

async function vmferry(...args: readonly string[]): Promise<{ status: number; stdout: string }> {
  let text = '';
  const stdout = new Writable({
    write: (chunk: Buffer, _, done) => {
      text += chunk.toString();
      done();
    },
  });
  const stderr = new Writable({ write: (_chunk, _, done) => done() });
  const status = await run(args, { stdout, stderr, env: process.env, signals: new EventEmitter() });
  return { status, stdout: text };
}

test('a plan tells the working set of a running guest, which runs on as it was', async () => {
  await nextPass(guest);
  const before = await settingsOf(guest);
  const { status, stdout } = await vmferry('plan', `qemu:${guest.productQmp}`, '--to', agents.url, '--json');
  expect(status).toBe(0);
  const plan = JSON.parse(stdout);
  // It writes 47 of its 64 MiB over and over. QEMU looks at samples, of which a small guest has few.
  const { pages } = plan.measured.workload.region;
  expect(pages).toBeGreaterThan(0.6 * 47 * 256);
  expect(pages).toBeLessThanOrEqual(64 * 256 + 2);
  expect(plan.measured.bytesPerSec).toBeGreaterThan(12_500_000);
  expect(plan.strategies).toHaveLength(3);
  expect(['precopy', 'hybrid', 'postcopy']).toContain(plan.recommended.strategy);
  expect(await settingsOf(guest)).toEqual(before);
  await nextPass(guest);
  expect(agents.dest.list().every(({ guest: name }) => name === '')).toBe(true);
});
