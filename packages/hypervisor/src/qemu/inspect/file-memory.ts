import { readFile, stat, statfs } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import type { RamBlock, SharedMemory } from '@vmferry/engine/guest';
import { z } from 'zod';
import { flagReply, type QmpExecutor, textReply, typed } from '../qmp/schema.ts';

/** File systems whose mappings userfaultfd covers: tmpfs and hugetlbfs (linux/magic.h). */
const COVERED = [0x01021994, 0x958458f6];

const objectsReply = z.array(z.looseObject({ name: z.string(), type: z.string() }));

/**
 * Memory that post-copy cannot fill on this host, because it is a file on a disk. QEMU itself finds out only
 * when the guest stands still already. What cannot be looked at is taken for good.
 */
export async function memoryBeyondUserfaultfd(client: QmpExecutor): Promise<GuestError[]> {
  const found = await Promise.all((await fileBackends(client)).map((name) => lookAt(client, name)));
  return found.flat();
}

/**
 * Blocks whose every write goes to a file that another process may have mapped as well. What cannot be looked at is
 * left out.
 */
export async function readSharedMemory(
  client: QmpExecutor,
  blocks: readonly RamBlock[],
): Promise<SharedMemory[]> {
  const names = await fileBackends(client);
  if (names.length === 0) return [];
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const found = await Promise.all(
    names.map(async (name): Promise<SharedMemory[]> => {
      const block = blocks.find((one) => one.name === name || one.name.endsWith(`/${name}`));
      const shared = await typed(client, 'qom-get', flagReply, {
        path: `/objects/${name}`,
        property: 'share',
      });
      if (block === undefined || !shared) return [];
      const path = await pathOf(client, name);
      const file = await stat(path, { bigint: true }).catch(() => undefined);
      // In a directory QEMU makes a file of its own.
      if (file === undefined || file.isDirectory()) return [];
      return [{ block: block.name, path, file: `${boot}:${file.dev}:${file.ino}` }];
    }),
  );
  return found.flat();
}

async function fileBackends(client: QmpExecutor): Promise<string[]> {
  const objects = await typed(client, 'qom-list', objectsReply, { path: '/objects' });
  return objects.filter(({ type }) => type === 'child<memory-backend-file>').map(({ name }) => name);
}

function pathOf(client: QmpExecutor, name: string): Promise<string> {
  return typed(client, 'qom-get', textReply, { path: `/objects/${name}`, property: 'mem-path' });
}

async function lookAt(client: QmpExecutor, name: string): Promise<GuestError[]> {
  const path = await pathOf(client, name);
  const type = await statfs(path).then(
    (stats) => stats.type,
    () => undefined,
  );
  if (type === undefined || COVERED.includes(type)) return [];
  return [
    new GuestError(
      'E_NO_USERFAULTFD',
      `post-copy cannot fill the memory back-end ${name}: ${path} is on a disk, which userfaultfd does not cover`,
      'Put the file on tmpfs or hugetlbfs, use memory-backend-memfd, or use --strategy precopy.',
    ),
  ];
}
