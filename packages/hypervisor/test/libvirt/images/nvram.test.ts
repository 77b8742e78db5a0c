import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NewNvram } from '@vmferry/hypervisor/libvirt/images/nvram';
import { afterEach, beforeEach, expect, test } from 'vitest';

const OWN = '/var/lib/libvirt/qemu/nvram';

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'vmferry-nvram-'));
  for (const folder of [OWN, '/srv/images', '/etc']) await mkdir(join(root, folder), { recursive: true });
});
afterEach(() => rm(root, { recursive: true, force: true }));

const nvram = (path: string | undefined) =>
  new NewNvram(path, { root, directories: [{ path: '/srv/images', here: join(root, 'srv/images') }] });
const make = (path: string) => writeFile(join(root, path), 'variables');
/** The kernel stamps files by a clock that moves every few milliseconds. */
const coarseClock = () => new Promise((resolve) => setTimeout(resolve, 20));
const left = async (folder: string) => await readdir(join(root, folder));

test('what was made since is removed, where libvirt or the configuration has it', async () => {
  const [own, other] = [nvram(`${OWN}/web_VARS.fd`), nvram('/srv/images/web.fd')];
  await coarseClock();
  await make(`${OWN}/web_VARS.fd`);
  await make('/srv/images/web.fd');
  await own.remove();
  await other.remove();
  expect([await left(OWN), await left('/srv/images')]).toEqual([[], []]);
});

test('what was there before, what lies elsewhere, and what is a link stays', async () => {
  await make(`${OWN}/old.fd`);
  await coarseClock();
  const all = [`${OWN}/old.fd`, '/etc/passwd', `${OWN}/../../../../../etc/group`, `${OWN}/link.fd`].map(
    nvram,
  );
  await make('/etc/passwd');
  await make('/etc/group');
  await symlink(join(root, '/etc/passwd'), join(root, OWN, 'link.fd'));
  for (const each of [...all, nvram(undefined), nvram(`${OWN}/never.fd`)]) await each.remove();
  expect(await left(OWN)).toEqual(['link.fd', 'old.fd']);
  expect(await left('/etc')).toEqual(['group', 'passwd']);
});
