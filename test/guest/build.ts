import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CommandError, run } from '../rig/process.ts';
import { repoRoot, testFile } from '../rig/repo.ts';

export interface GuestImage {
  readonly kernel: string;
  readonly initrd: string;
}

/** In the order in which they load. */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
  'virtio_blk',
];

const META_PACKAGE = 'linux-image-cloud-amd64';

/**
 * The Linux test guest: Debian's cloud kernel, unpacked and not installed, and an initramfs with nothing but
 * the verifier as init and its modules. Both are cached in `.cache/guest`, the kernel for as long as the
 * folder lives, the initramfs by a hash of what goes into it.
 */
export async function buildGuest(): Promise<GuestImage> {
  const cache = join(repoRoot(), '.cache', 'guest');
  await mkdir(cache, { recursive: true });
  const kernelDir = await fetchKernel(cache);
  const sources = ['guest/verifier.c', 'guest/words.h', 'guest/build.ts'].map(testFile);
  const hash = createHash('sha256').update(await readFile(join(kernelDir, 'package'), 'utf8'));
  for (const source of sources) hash.update(await readFile(source));
  const initrd = join(cache, `initrd-${hash.digest('hex').slice(0, 16)}`);
  await once(initrd, async (path) => {
    const work = await mkdtemp(join(cache, 'work-'));
    try {
      await makeInitrd(kernelDir, work, path);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  return { kernel: join(kernelDir, 'vmlinuz'), initrd };
}

async function fetchKernel(cache: string): Promise<string> {
  const dir = join(cache, 'kernel');
  await once(dir, async (path) => {
    await mkdir(join(path, 'modules'), { recursive: true });
    const name = await kernelPackage();
    await run(['apt-get', 'download', '-o', 'APT::Sandbox::User=root', name], {
      cwd: path,
      timeoutMs: 300_000,
    });
    const archive = (await readdir(path)).find((file) => file.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get download ${name} left no package`);
    await run(['dpkg', '-x', archive, 'unpacked'], { cwd: path });
    const unpacked = join(path, 'unpacked');
    const files = (await readdir(unpacked, { recursive: true })).map((file) => join(unpacked, file));
    const vmlinuz = files.find((file) => basename(file).startsWith('vmlinuz-'));
    if (vmlinuz === undefined) throw new Error(`${name} has no vmlinuz`);
    await cp(vmlinuz, join(path, 'vmlinuz'));
    for (const module of MODULES) {
      const file = files.find(
        (candidate) => /^(.*)\.ko(\.xz|\.zst)?$/.exec(basename(candidate))?.[1] === module,
      );
      if (file === undefined) throw new Error(`${name} has no module ${module}`);
      await unpackModule(file, join(path, 'modules', `${module}.ko`));
    }
    await rm(unpacked, { recursive: true });
    await rm(join(path, archive));
    await writeFile(join(path, 'package'), archive);
  });
  return dir;
}

async function unpackModule(file: string, target: string): Promise<void> {
  await cp(file, `${target}${/\.ko(.*)$/.exec(file)?.[1] ?? ''}`);
  if (file.endsWith('.xz')) await run(['xz', '-d', `${target}.xz`]);
  if (file.endsWith('.zst')) await run(['zstd', '-d', '--rm', `${target}.zst`]);
}

async function kernelPackage(): Promise<string> {
  const find = async () => {
    const { stdout } = await run(['apt-cache', 'depends', META_PACKAGE]);
    return /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  };
  const missing = (error: unknown) => {
    if (error instanceof CommandError) return undefined;
    throw error;
  };
  const known = await find().catch(missing);
  if (known !== undefined) return known;
  await run(['apt-get', 'update'], { timeoutMs: 300_000 });
  const found = await find();
  if (found === undefined) throw new Error(`${META_PACKAGE} depends on no kernel package`);
  return found;
}

async function makeInitrd(kernelDir: string, work: string, initrd: string): Promise<void> {
  const root = join(work, 'root');
  for (const dir of ['proc', 'sys', 'dev', 'modules']) await mkdir(join(root, dir), { recursive: true });
  const source = testFile('guest/verifier.c');
  await run(['cc', '-O2', '-static', '-Wall', '-Wextra', '-pthread', '-o', join(root, 'init'), source], {
    timeoutMs: 120_000,
  });
  await run(['strip', join(root, 'init')]);
  for (const module of MODULES) {
    await cp(join(kernelDir, 'modules', `${module}.ko`), join(root, 'modules', `${module}.ko`));
  }
  await writeFile(join(root, 'modules', 'list'), MODULES.map((module) => `${module}.ko\n`).join(''));
  const names = ['.', ...(await readdir(root, { recursive: true })).sort()];
  await run(['cpio', '--quiet', '-o', '-H', 'newc', '-O', initrd], {
    cwd: root,
    input: `${names.join('\n')}\n`,
  });
}

/** Makes a path that isn't there yet under another name and moves it in place, so that no one sees half of it. */
async function once(path: string, make: (path: string) => Promise<void>): Promise<void> {
  const parent = dirname(path);
  if ((await readdir(parent)).includes(basename(path))) return;
  const scratch = await mkdtemp(join(parent, 'new-'));
  const target = join(scratch, basename(path));
  try {
    await make(target);
    await rename(target, path).catch((error: NodeJS.ErrnoException) => {
      // Another run was first: its result is as good.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
