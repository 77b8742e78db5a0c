import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DestAgentOptions, SourceAgentOptions } from '@vmferry/agent-core/config';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FakeOperations } from '../../agent-core/test/fake-operations.ts';
import type { AgentFactory } from '../src/embedded.ts';
import { NO_AGENTS, serveFake, start, vmferry } from './rig.ts';

const TO = 'ws://127.0.0.1:1';
let dir: string;
let agent: Awaited<ReturnType<typeof serveFake>>;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmferry-cli-'));
  agent = await serveFake();
  agent.fake.script = (migration) => void migration.finish();
});
afterEach(async () => {
  await agent.close();
  await rm(dir, { recursive: true, force: true });
});

it('asks for what only a guest of libvirt’s has, the XML by its content', async () => {
  const xml = join(dir, 'dest.xml');
  await writeFile(xml, '<domain/>');
  const options = ['--copy-storage', 'inc', '--undefine-source', '--dest-xml', xml];
  const { status } = await vmferry('migrate', 'libvirt:web', '--from', agent.url, '--to', TO, ...options);
  expect(status).toBe(0);
  expect(agent.fake.migrations.at(-1)?.request).toMatchObject({
    guest: 'libvirt:web',
    copyStorage: 'inc',
    undefineSource: true,
    destXml: '<domain/>',
  });
});

it('refuses an XML file that is not there, and a way of copying that there is not', async () => {
  const missing = await vmferry('migrate', 'libvirt:web', '--to', TO, '--dest-xml', join(dir, 'none.xml'));
  expect(missing.status).toBe(2);
  expect(missing.stderr).toContain('cannot read the domain file');
  const wrong = await vmferry('migrate', 'libvirt:web', '--to', TO, '--copy-storage', 'some');
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain("'some' is invalid");
});

it('resume asks the source agent to finish, and needs to be told the destination', async () => {
  const { status, stdout } = await vmferry(
    'resume',
    'libvirt:web',
    '--from',
    agent.url,
    '--to',
    TO,
    ...['--dest-guest', 'libvirt:there', '--undefine-source'],
    '--json',
  );
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ outcome: 'completed' });
  expect(agent.fake.migrations.at(-1)?.request).toMatchObject({
    guest: 'libvirt:web',
    to: TO,
    destGuest: 'libvirt:there',
    undefineSource: true,
    resume: true,
  });
  const without = await vmferry('resume', 'libvirt:web');
  expect(without.status).toBe(2);
  expect(without.stderr).toContain("'--to <url>' not specified");
});

it('gives agents of its own the libvirt that it is told, or that the file names', async () => {
  const seen: (SourceAgentOptions | DestAgentOptions)[] = [];
  const fake = new FakeOperations();
  fake.script = (migration) => void migration.finish();
  const closing = Object.assign(fake, {
    close: () => Promise.resolve(),
    settle: () => Promise.resolve(),
  });
  const agents: AgentFactory = {
    ...NO_AGENTS,
    source: (options) => {
      seen.push(options);
      return Promise.resolve(closing);
    },
    dest: () => Promise.reject(new Error('no embedded destination was expected')),
  };
  const config = join(dir, 'agent.yaml');
  await writeFile(config, 'libvirt: { uri: "qemu+unix:///system?socket=/a", socketDir: /run/x }');
  const args = ['migrate', 'libvirt:web', '--to', TO, '--config', config];
  await start(args, { agents }).status;
  await start([...args, '--libvirt', 'qemu:///system'], { agents }).status;
  expect(seen.map(({ libvirt }) => libvirt)).toMatchObject([
    { uri: 'qemu+unix:///system?socket=/a', socketDir: '/run/x' },
    { uri: 'qemu:///system', socketDir: '/run/x' },
  ]);
});
