/** Disk images with the real qemu-img, in directories of their own. */
import { execFile } from 'node:child_process';
import {
  appendFile,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { confine } from '@vmferry/hypervisor/libvirt/images/confine';
import { ImageRecord } from '@vmferry/hypervisor/libvirt/images/record';
import type { ImageRequest } from '@vmferry/hypervisor/libvirt/images/request';
import { imageRequests } from '@vmferry/hypervisor/libvirt/images/request';
import { ImageStore } from '@vmferry/hypervisor/libvirt/images/store';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { domainFacts, GiB, MiB, shape } from '../support/domain.ts';

let root: string;
let store: ImageStore;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'vmferry-images-'));
  for (const name of ['images', 'images/below', 'bases', 'elsewhere']) await mkdir(join(root, name));
  store = new ImageStore({ directories: named('images'), baseDirectories: named('bases') });
});
afterEach(() => rm(root, { recursive: true, force: true }));

const named = (name: string) => [{ path: at(name), here: at(name) }];
const at = (...names: string[]) => join(root, ...names);

const request = (path: string, changes: Partial<ImageRequest> = {}): ImageRequest => ({
  target: 'vda',
  path,
  format: 'qcow2',
  virtualBytes: 10 * MiB,
  contentBytes: MiB,
  ...changes,
});

async function info(path: string): Promise<Record<string, unknown>> {
  const { stdout } = await promisify(execFile)('qemu-img', ['info', '--output=json', path]);
  return JSON.parse(stdout) as Record<string, unknown>;
}

const told = async (...requests: ImageRequest[]) =>
  (await store.check(requests)).map(({ severity, code }) => `${severity} ${code}`);

async function expectRefused(path: string, code: string): Promise<void> {
  expect(await told(request(path))).toEqual([`refusal ${code}`]);
  await expect(store.create([request(path)])).rejects.toMatchObject({
    code,
    remedy: expect.stringMatching(/\.$/),
  });
}

test('images have the size and the format, and belong to QEMU alone', async () => {
  const owner = process.getuid?.() === 0 ? { uid: 12_345, gid: 12_346 } : undefined;
  store = new ImageStore({ directories: named('images'), owner });
  const requests = [
    request(at('images/a.qcow2')),
    request(at('images/below/b.raw'), { format: 'raw', target: 'vdb', virtualBytes: 5 * MiB }),
  ];
  expect(await told(...requests)).toEqual([]);
  const images = await store.create(requests);
  expect(images.paths).toEqual([at('images/a.qcow2'), at('images/below/b.raw')]);
  await images.keep();
  expect(await info(at('images/a.qcow2'))).toMatchObject({ format: 'qcow2', 'virtual-size': 10 * MiB });
  expect((await info(at('images/a.qcow2')))['backing-filename']).toBeUndefined();
  expect(await info(at('images/below/b.raw'))).toMatchObject({ format: 'raw', 'virtual-size': 5 * MiB });
  const { mode, uid, gid } = await stat(at('images/a.qcow2'));
  expect(mode & 0o777).toBe(0o600);
  if (owner !== undefined) expect({ uid, gid }).toEqual(owner);
});

test('what was created goes when the migration is given up, and stays when the guest has come', async () => {
  const first = await store.create([request(at('images/a'))]);
  await first.remove();
  await first.remove();
  expect(await readdir(at('images'))).toEqual(['below']);
  const second = await store.create([request(at('images/a'))]);
  await second.keep();
  await second.remove();
  expect(await readdir(at('images'))).toEqual(['a', 'below']);
});

test("somebody else's file in an image's place is not removed", async () => {
  const images = await store.create([request(at('images/a')), request(at('images/b'))]);
  await unlink(at('images/a'));
  await writeFile(at('images/a'), 'mine');
  await unlink(at('images/b'));
  await images.remove();
  expect(await readFile(at('images/a'), 'utf8')).toBe('mine');
});

test('of several images all are created or none', async () => {
  const broken = new ImageStore({ directories: named('images'), qemuImg: '/bin/false' });
  await expect(broken.create([request(at('images/a'))])).rejects.toMatchObject({ code: 'E_GUEST_FAILED' });
  await expect(
    new ImageStore({ directories: named('images'), qemuImg: at('no-such-program') }).create([
      request(at('images/a')),
    ]),
  ).rejects.toMatchObject({ code: 'E_GUEST_FAILED', message: expect.stringMatching(/ENOENT/) });
  await expect(store.create([request(at('images/a')), request(at('elsewhere/b'))])).rejects.toMatchObject({
    code: 'E_REFUSED',
  });
  expect(await readdir(at('images'))).toEqual(['below']);
});

test('a file that is there is never overwritten, nor a link that leads nowhere', async () => {
  await writeFile(at('images/a'), 'precious');
  await expectRefused(at('images/a'), 'E_FILE_EXISTS');
  expect(await readFile(at('images/a'), 'utf8')).toBe('precious');
  await symlink(at('elsewhere/target'), at('images/link'));
  await expectRefused(at('images/link'), 'E_FILE_EXISTS');
  expect(await readdir(at('elsewhere'))).toEqual([]);
  expect(await told(request(at('images/c')), request(at('images/c'), { target: 'vdb' }))).toEqual([
    'refusal E_FILE_EXISTS',
  ]);
});

test('no image leaves the directories that are named, by whatever path', async () => {
  await symlink(at('elsewhere'), at('images/out'));
  await expectRefused(at('elsewhere/a'), 'E_REFUSED');
  await expectRefused(at('images/out/a'), 'E_REFUSED');
  await expectRefused(`${at('images')}/../elsewhere/a`, 'E_REFUSED');
  await expectRefused(`${at('images')}//a`, 'E_REFUSED');
  await expectRefused('images/a', 'E_REFUSED');
  await expectRefused(at('images'), 'E_REFUSED');
  await expectRefused(`${root}/images-too`, 'E_REFUSED');
  await expectRefused('/', 'E_REFUSED');
  await expectRefused(at('images/not-there/a'), 'E_FILE_MISSING');
  await expectRefused(at('bases/a'), 'E_REFUSED');
  expect(await told(request(`${at('images')}/a\0`))).toEqual(['refusal E_REFUSED']);
  store = new ImageStore({ directories: [] });
  await expectRefused(at('images/a'), 'E_REFUSED');
});

test('directories that are named by a link to them are these', async () => {
  await symlink(at('images'), at('linked'));
  store = new ImageStore({ directories: named('linked') });
  const images = await store.create([request(at('linked/a')), request(at('images/b'), { target: 'vdb' })]);
  expect(images.paths).toEqual([at('images/a'), at('images/b')]);
  await images.keep();
});

test('a directory that libvirt sees elsewhere is found where the agent sees it, and only what is in it', async () => {
  await symlink(at('elsewhere'), at('images/out'));
  store = new ImageStore({
    directories: [{ path: '/var/lib/nowhere/images', here: at('images') }],
    baseDirectories: [{ path: '/var/lib/nowhere/bases', here: at('bases') }],
  });
  await writeFile(at('bases/base'), '');
  const backing = { path: '/var/lib/nowhere/bases/base', format: 'qcow2' } as const;
  const images = await store.create([request('/var/lib/nowhere/images/below/a', { backing })]);
  expect(images.paths).toEqual([at('images/below/a')]);
  await images.keep();
  const { stdout } = await promisify(execFile)('qemu-img', ['info', '--output=json', at('images/below/a')]);
  expect(JSON.parse(stdout)).toMatchObject({ 'backing-filename': backing.path });
  await expectRefused('/var/lib/nowhere/images/out/a', 'E_REFUSED');
  await expectRefused('/var/lib/nowhere/images/lost/a', 'E_FILE_MISSING');
  await expectRefused('/var/lib/nowhere/images/../bases/a', 'E_REFUSED');
  await expectRefused(at('images/a'), 'E_REFUSED');
});

test('whatever the path is made of, nothing appears outside', async () => {
  await symlink(at('elsewhere'), at('images/out'));
  await symlink('..', at('images/up'));
  const piece = fc.constantFrom(
    '..',
    '.',
    '',
    'out',
    'up',
    'below',
    'elsewhere',
    'images',
    'new',
    'a b',
    "'; touch x;'",
    '-o',
  );
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 6 }), async (pieces) => {
      const path = [at('images'), ...pieces].join('/');
      const place = await confine(path, named('images'));
      if (!place.ok) return;
      expect(`${place.directory}/`.startsWith(`${at('images')}/`)).toBe(true);
      expect(place.name).not.toMatch(/^$|^\.\.?$|\//);
    }),
    { numRuns: 500 },
  );
});

test('an overlay refers to its backing image, which must be there and where it may be', async () => {
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', at('bases/base'), '10M']);
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', at('elsewhere/base'), '10M']);
  await symlink(at('elsewhere/base'), at('bases/link'));
  const over = (path: string) => request(at('images/top'), { backing: { path, format: 'qcow2' } });
  const refused = async (path: string) => (await store.check([over(path)])).map(({ code }) => code);
  expect(await refused(at('bases/lost'))).toEqual(['E_FILE_MISSING']);
  expect(await refused(at('bases'))).toEqual(['E_REFUSED']);
  expect(await refused(at('images/below'))).toEqual(['E_FILE_MISSING']);
  expect(await refused(at('elsewhere/base'))).toEqual(['E_REFUSED']);
  expect(await refused(at('bases/link'))).toEqual(['E_REFUSED']);
  expect(await refused('/etc/shadow')).toEqual(['E_REFUSED']);
  await (await store.create([over(at('bases/base'))])).keep();
  expect(await info(at('images/top'))).toMatchObject({
    'backing-filename': at('bases/base'),
    'backing-filename-format': 'qcow2',
    'virtual-size': 10 * MiB,
  });
});

test('the images of an agent that was killed are removed by the next one, and nothing else', async () => {
  const record = new ImageRecord(at('state/journal/s-dest.images'));
  const names = ['a', 'b', 'c'].map((name) => at('images', name));
  const killed = await store.create(
    names.map((path) => request(path, { target: path })),
    record,
  );
  await killed.leave();
  // Somebody has made room for an image of their own meanwhile, and an agent died while it wrote.
  await unlink(at('images/b'));
  await writeFile(at('images/b'), 'mine');
  await appendFile(at('state/journal/s-dest.images'), '{"path":"/');
  expect(await new ImageRecord(at('state/journal/s-dest.images')).removeImages()).toEqual([
    at('images/a'),
    at('images/c'),
  ]);
  expect(await readFile(at('images/b'), 'utf8')).toBe('mine');
  expect(await record.removeImages()).toEqual([]);
});

test('images that are kept or given up are no longer noted', async () => {
  const record = new ImageRecord(at('state/s.images'));
  const kept = await store.create([request(at('images/a'))], record);
  expect(await readdir(at('state'))).toEqual(['s.images']);
  await kept.keep();
  expect(await record.removeImages()).toEqual([]);
  const removed = await store.create([request(at('images/b'))], record);
  await removed.remove();
  await expect(store.create([request(at('images/c')), request('/elsewhere')], record)).rejects.toThrow();
  expect(await readdir(at('state'))).toEqual([]);
  expect(await readdir(at('images'))).toEqual(['a', 'below']);
});

test('room is checked for what will be written, and told for what may be', async () => {
  const much = 1024 ** 5;
  expect(await told(request(at('images/a'), { virtualBytes: much, contentBytes: much }))).toEqual([
    'refusal E_NO_SPACE',
  ]);
  expect(await told(request(at('images/a'), { virtualBytes: much }))).toEqual(['warning E_NO_SPACE']);
  const half = (name: string) =>
    request(at('images', name), { target: name, virtualBytes: much, contentBytes: much / 2 });
  expect(await told(half('a'), half('b'))).toEqual(['refusal E_NO_SPACE']);
  const images = await store.create([request(at('images/a'), { virtualBytes: 1024 ** 4 })]);
  expect((await lstat(at('images/a'))).blocks * 512).toBeLessThan(MiB);
  await images.remove();
});

const disks = (xml: string) =>
  shape({
    devices: `<disk type='file'><driver type='qcow2'/><source file='/img/top'/>
      <backingStore type='file'><format type='raw'/><source file='/img/base'/><backingStore/></backingStore>
      <target dev='vda'/></disk>${xml}`,
  });
const sizes = [{ target: 'vda', virtualBytes: 2 * GiB, allocatedBytes: MiB }];

test('which images are needed follows from the disks and from what is copied', () => {
  const asked = (copyStorage: 'none' | 'all' | 'inc', more = '') =>
    imageRequests(
      domainFacts({
        shape: disks(more),
        images: sizes,
        copyStorage,
        copied: copyStorage === 'none' ? [] : ['vda', 'vdc'],
      }),
    );
  const top = { target: 'vda', path: '/img/top', format: 'qcow2', virtualBytes: 2 * GiB, contentBytes: MiB };
  expect(asked('none')).toEqual({ requests: [], findings: [] });
  expect(asked('all')).toEqual({ requests: [top], findings: [] });
  expect(asked('inc').requests).toEqual([{ ...top, backing: { path: '/img/base', format: 'raw' } }]);
  const untouched = `<disk device='cdrom' type='file'><source file='/img/cd'/><target dev='sda'/></disk>
    <disk type='file'><source file='/img/s'/><target dev='vdb'/><shareable/></disk>
    <disk type='block'><source dev='/dev/vg/x'/><target dev='vdc'/></disk>`;
  expect(asked('all', untouched)).toEqual({ requests: [top], findings: [] });
});

test.each([
  [
    'a format that is not created',
    `<disk type='file'><driver type='vmdk'/><source file='/img/b'/><target dev='vdb'/></disk>`,
    GiB,
  ],
  [
    'a size that is not known',
    `<disk type='file'><driver type='raw'/><source file='/img/b'/><target dev='vdb'/></disk>`,
    undefined,
  ],
  [
    'a size that no image has',
    `<disk type='file'><driver type='raw'/><source file='/img/b'/><target dev='vdb'/></disk>`,
    1000,
  ],
])('%s is told', (_, xml, virtualBytes) => {
  const images = [...sizes, { target: 'vdb', ...(virtualBytes === undefined ? {} : { virtualBytes }) }];
  const { requests, findings } = imageRequests(
    domainFacts({ shape: disks(xml), images, copyStorage: 'all', copied: ['vda', 'vdb'] }),
  );
  expect(requests).toHaveLength(1);
  expect(findings).toEqual([expect.objectContaining({ severity: 'refusal', code: 'E_UNSUPPORTED' })]);
});
