/**
 * What an image takes of its storage, where the agent does not see it (libvirtd in a container, or the agent another user
 * than root). Of a domain that is off libvirt looks itself. Of one that runs and has written to a raw image it tells only
 * how far was written since its start: there QEMU is asked, which has it open.
 */
import type { Domain } from '@vmferry/native/libvirt/domain';
import type { QmpExecutor } from '../../qemu/qmp/schema.ts';
import { blockNodesReply, typed } from '../../qemu/qmp/schema.ts';

/** Of a running domain, by its images' paths. None where QEMU cannot be asked. */
export async function openImageSizes(qemu: QmpExecutor): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  try {
    const nodes = await typed(qemu, 'query-named-block-nodes', blockNodesReply, { flat: true });
    for (const { file, image } of nodes) {
      const size = image['actual-size'];
      if (size !== undefined) sizes.set(file, size);
    }
  } catch {
    // Its libvirt has said what it knows.
  }
  return sizes;
}

/**
 * Bytes.
 *
 * @param open what QEMU says; undefined where the domain does not run
 */
export function takenBytes(
  info: Awaited<ReturnType<Domain['blockInfo']>> | undefined,
  open: number | undefined,
  runs: boolean,
): number | undefined {
  if (open !== undefined) return open;
  if (info === undefined) return undefined;
  // No less than the image holds. Of a sparse one much more.
  return Number(runs ? info.physicalBytes : info.allocationBytes);
}
