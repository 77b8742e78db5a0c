import { statfs } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import { z } from 'zod';
import { type QmpExecutor, textReply, typed } from '../qmp/schema.ts';

/** File systems whose mappings userfaultfd covers: tmpfs and hugetlbfs (linux/magic.h). */
const COVERED = [0x01021994, 0x958458f6];

const objectsReply = z.array(z.looseObject({ name: z.string(), type: z.string() }));

/**
 * Memory that post-copy cannot fill on this host, because it is a file on a disk. QEMU itself finds out only
 * when the guest stands still already. What cannot be looked at is taken for good.
 */
export async function memoryBeyondUserfaultfd(client: QmpExecutor): Promise<GuestError[]> {
  const objects = await typed(client, 'qom-list', objectsReply, { path: '/objects' });
  const files = objects.filter(({ type }) => type === 'child<memory-backend-file>');
  const found = await Promise.all(files.map(({ name }) => lookAt(client, name)));
  return found.flat();
}

async function lookAt(client: QmpExecutor, name: string): Promise<GuestError[]> {
  const path = await typed(client, 'qom-get', textReply, { path: `/objects/${name}`, property: 'mem-path' });
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
