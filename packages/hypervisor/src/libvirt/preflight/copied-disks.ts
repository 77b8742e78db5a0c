/**
 * Which disks a migration copies. Left to itself libvirt copies every disk that is neither read-only nor shareable: one
 * that both hosts reach, a network disk or an image on NFS, it would mirror over itself while the guest writes to it.
 * So it is told which, and by the same list the destination makes images and judges what it has.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Disk } from '../xml/domain-shape.ts';
import type { DiskImage, DomainFacts } from './domain-facts.ts';
import type { CopyStorage } from './plan.ts';

export interface CopyQuestion {
  readonly copyStorage: CopyStorage;
  /** The domain's disks as they are on the source. */
  readonly disks: readonly Disk[];
  /** As they are to be on the destination. */
  readonly wanted: readonly Disk[];
  readonly images: readonly DiskImage[];
}

/** Their targets. What is at another place over there is copied whatever it lies on: both hosts seeing it is no use. */
export function disksToCopy({ copyStorage, disks, wanted, images }: CopyQuestion): string[] {
  if (copyStorage === 'none') return [];
  return wanted
    .filter(({ source, readonly, shareable }) => source.type !== 'none' && !readonly && !shareable)
    .filter(({ target, source }) => {
      const here = disks.find((disk) => disk.target === target);
      const image = images.find((each) => each.target === target);
      return (here !== undefined && !isDeepStrictEqual(here.source, source)) || !isShared(source, image);
    })
    .map(({ target }) => target);
}

export function isCopied({ target }: Disk, { copied }: Pick<DomainFacts, 'copied'>): boolean {
  return copied.includes(target);
}

/** Reached by both hosts, as far as the source can tell. Of a block device it cannot: that is for the destination. */
function isShared(source: Disk['source'], image: DiskImage | undefined): boolean {
  if (source.type === 'network') return true;
  if (source.type === 'volume' && image?.networked === true) return true;
  return image?.file?.shared === true;
}
