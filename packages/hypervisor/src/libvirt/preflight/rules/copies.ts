/** What disks are copied to, where it is not a file that the destination agent creates. */
import type { Disk } from '../../xml/domain-shape.ts';
import { isCopied } from '../copied-disks.ts';
import { type DiskImage, type DomainFacts, imageOf } from '../domain-facts.ts';
import { type Finding, refusal } from '../finding.ts';
import type { HostFacts, Place } from '../host-facts.ts';

/**
 * A device to copy to is there, and is not the one that is copied from: two hosts that share a LUN or a volume group may
 * see it under one name, and a copy over itself is the end of the guest's data.
 */
export function copyTargetRule(facts: DomainFacts, host: HostFacts): Finding[] {
  return facts.shape.disks.flatMap((disk) => {
    if (!isCopied(disk, facts)) return [];
    const image = imageOf(facts, disk.target);
    if (disk.source.type === 'volume') return volumeTarget(disk, image, host);
    if (disk.source.type !== 'block') return [];
    const place = host.places.get(disk.source.path);
    if (place?.found !== 'something' || place.kind !== 'block')
      return [missing(disk, disk.source.path, host)];
    return [...sameDevice(disk, image, place, host), ...tooSmall(disk, image, place, host)];
  });
}

/** QEMU would find out when it begins to copy. */
function tooSmall(
  { target, source }: Disk,
  image: DiskImage | undefined,
  { bytes }: { readonly bytes?: number },
  { host }: HostFacts,
): Finding[] {
  const needed = image?.virtualBytes;
  if (bytes === undefined || needed === undefined || bytes >= needed) return [];
  const what = 'path' in source ? source.path : source.type;
  return [
    refusal(
      'E_NO_SPACE',
      `disk ${target} holds ${needed} bytes, and ${what} on ${host.name}, to which it is to be copied, ${bytes}`,
      'Make the device there at least as large, or name another one with --dest-xml.',
    ),
  ];
}

/** libvirt makes the volume, or takes the one of that name, whatever is in it. */
function volumeTarget(disk: Disk, image: DiskImage | undefined, host: HostFacts): Finding[] {
  const volume = host.volumes.get(disk.target);
  // Of its pool the rule for those tells.
  if (volume?.found !== 'volume') return [];
  if (volume.type === 'block') return sameDevice(disk, image, host.places.get(volume.path), host);
  return [
    refusal(
      'E_FILE_EXISTS',
      `disk ${disk.target} is to be copied to a volume that ${host.host.name} has already (${volume.path})`,
      'Nothing is overwritten: delete that volume (virsh vol-delete) or rename it if it is not needed, name another one with --dest-xml, or migrate without --copy-storage if it is the same storage.',
    ),
  ];
}

function sameDevice(
  { target, source }: Disk,
  image: DiskImage | undefined,
  place: Place | undefined,
  { host }: HostFacts,
): Finding[] {
  const from = image?.device;
  const to = place?.found === 'something' ? place.device : undefined;
  const what = 'path' in source ? source.path : source.type === 'volume' ? source.volume : source.type;
  const kindOf = (identity: string) => identity.slice(0, identity.indexOf(':'));
  if (from === undefined || to === undefined || kindOf(from) !== kindOf(to)) {
    return [
      refusal(
        'E_DISK_UNSAFE',
        `disk ${target} is to be copied to ${what}, and whether ${host.name} has the source's own storage there cannot be told`,
        'Copy to logical volumes or to disks with a WWN, or to image files; if both hosts share it, migrate without --copy-storage.',
      ),
    ];
  }
  if (from !== to) return [];
  return [
    refusal(
      'E_DISK_UNSAFE',
      `disk ${target} is to be copied to ${what}, which is the same device on both hosts (${to})`,
      'Migrate without --copy-storage, or name another device with --dest-xml.',
    ),
  ];
}

function missing({ target }: Disk, path: string, { host }: HostFacts): Finding {
  return refusal(
    'E_FILE_MISSING',
    `disk ${target} is to be copied to ${path}, which is no block device on ${host.name}`,
    'Create a volume of the same size there, or name another place with --dest-xml: vmferry creates image files only.',
  );
}
