/** Disks that both hosts must see, and media that one of them has. Those that are copied: `copies.ts`, `images/`. */
import type { Disk } from '../../xml/domain-shape.ts';
import { isCopied } from '../copied-disks.ts';
import { type DomainFacts, imageOf } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts, Place } from '../host-facts.ts';

/** Since 4.0 QEMU drops what the page cache holds of a file when a guest comes in. */
const DROPS_CACHE_SINCE = 4_000_000;
const COPY = 'copy the disks with --copy-storage all';

const pathOf = ({ source }: Disk): string | undefined => ('path' in source ? source.path : undefined);

/** What no other host can open. */
export function localMediaRule({ shape }: DomainFacts): Finding[] {
  return shape.disks.flatMap((disk) => {
    const { target, device, source } = disk;
    if (disk.transient) {
      return [
        refusal(
          'E_DEVICE_BOUND',
          `disk ${target} is transient (what the guest writes to it is dropped at its end), and libvirt does not move it`,
          'Start the guest with a disk that is not transient, or detach it.',
        ),
      ];
    }
    if (source.type === 'other') {
      return [
        refusal(
          'E_DEVICE_BOUND',
          `disk ${target} is ${source.kind} storage of the source's host, which cannot move`,
          'Detach it, or move its content to storage that both hosts see.',
        ),
      ];
    }
    if (source.type !== 'block' || (device !== 'cdrom' && device !== 'floppy')) return [];
    return [
      refusal(
        'E_DEVICE_BOUND',
        `the ${device} drive ${target} is the source's own drive ${source.path}: its medium cannot move`,
        `Eject it (virsh change-media ${shape.name} ${target} --eject).`,
      ),
    ];
  });
}

/** Without a copy, a disk that the guest writes must be on storage that both hosts have mounted. */
export function sharedStorageRule(facts: DomainFacts): Finding[] {
  return facts.shape.disks.flatMap((disk) => {
    const { source } = disk;
    if ((source.type !== 'file' && source.type !== 'volume') || disk.readonly || isCopied(disk, facts)) {
      return [];
    }
    const image = imageOf(facts, disk.target);
    const file = image?.file;
    if (file === undefined || file.shared || file.filesystem === '') return [];
    const path = source.type === 'file' ? source.path : (image?.path ?? source.volume);
    return [
      refusal(
        'E_DISK_UNSAFE',
        `disk ${disk.target} (${path}) is on a local file system (${file.filesystem}), which the destination does not see`,
        disk.shareable
          ? 'Move it to storage that both hosts see; what several guests write to is not copied.'
          : `Move it to storage that both hosts see, or ${COPY}.`,
      ),
    ];
  });
}

/** What one host holds back in its cache the other one does not see. */
export function diskCacheRule(facts: DomainFacts, host: HostFacts): Finding[] {
  const old = Math.min(facts.versions.hypervisor, host.versions.hypervisor) < DROPS_CACHE_SINCE;
  return facts.shape.disks.flatMap((disk) => {
    const { target, source, readonly, cache } = disk;
    const networked = source.type === 'network' || source.type === 'none';
    if (networked || readonly || isCopied(disk, facts) || ['none', 'directsync'].includes(cache)) return [];
    if (cache === 'unsafe') {
      return [
        refusal(
          'E_DISK_UNSAFE',
          `disk ${target} has cache="unsafe": what the guest wrote may still be in the source's memory`,
          `Restart the guest with cache="none", or ${COPY}.`,
        ),
      ];
    }
    if (!old) return [];
    return [
      refusal(
        'E_DISK_UNSAFE',
        `disk ${target} has cache="${cache || 'default'}", and a QEMU before 4.0 may read stale data from its host's cache`,
        `Use cache="none", update QEMU, or ${COPY}.`,
      ),
    ];
  });
}

/** What the guest needs to find there at the same place, and that it is the same. */
export function reachabilityRule(facts: DomainFacts, host: HostFacts): Finding[] {
  return facts.shape.disks.flatMap((disk) => {
    const path = pathOf(disk);
    const place = path === undefined ? undefined : host.places.get(path);
    if (path === undefined || place === undefined) return [];
    if (isCopied(disk, facts)) return [];
    const missing = missingDisk(facts, disk, place, host);
    if (missing.length > 0) return missing;
    return place.found === 'something' ? anotherFile(facts, disk, path, place.inode, host) : [];
  });
}

/**
 * An image that is opened there opens all that lies below it. Of one that is copied above its backing images the topmost
 * of those is judged by `images/store.ts`; of one that is copied whole libvirt opens what the domain's XML names.
 */
export function backingRule(facts: DomainFacts, { host, places }: HostFacts): Finding[] {
  return facts.shape.disks.flatMap((disk) => {
    const { target } = disk;
    return neededBacking(disk, facts).flatMap(({ source }) => {
      const place = 'path' in source ? places.get(source.path) : undefined;
      if (place === undefined || !('path' in source) || place.found === 'something') return [];
      const message = `disk ${target} lies on ${source.path}, which ${host.name}`;
      if (place.found === 'unknown') {
        const why = `${message} may not have: ${place.why}`;
        return [warning('E_FILE_MISSING', why, 'Check that its libvirtd can open it.')];
      }
      return [
        refusal(
          'E_FILE_MISSING',
          `${message} does not have`,
          isCopied(disk, facts) && facts.copyStorage === 'all'
            ? "Copy it there as well, as the domain's XML names it; or bring the chain into one image first (virsh blockpull)."
            : 'Mount or copy the backing image there at the same path.',
        ),
      ];
    });
  });
}

function neededBacking(disk: Disk, facts: DomainFacts): Disk['backing'] {
  const { backing, backingNamed, target } = disk;
  if (isCopied(disk, facts)) {
    if (facts.copyStorage === 'inc') return backing.slice(1);
    return backingNamed ? backing : [];
  }
  // The chain is told as it is on the source: of an image at another place it says nothing.
  return pathOf(disk) === imageOf(facts, target)?.path ? backing : [];
}

function missingDisk({ copyStorage }: DomainFacts, disk: Disk, place: Place, { host }: HostFacts): Finding[] {
  const path = pathOf(disk) ?? '';
  const what =
    disk.device === 'disk' || disk.device === 'lun' ? 'disk' : `medium of the ${disk.device} drive`;
  switch (place.found) {
    case 'something':
      return [];
    case 'unknown':
      return [
        warning(
          'E_FILE_MISSING',
          `whether ${host.name} has the ${what} ${disk.target} at ${path} is not known: ${place.why}`,
          'Check that its libvirtd can open it.',
        ),
      ];
    case 'nothing': {
      const message = `the ${what} ${disk.target} is not on ${host.name} at ${path}`;
      if (disk.optional) {
        return [
          warning('E_FILE_MISSING', message, 'libvirt goes on without it (its startupPolicy says so).'),
        ];
      }
      if (what === 'disk' && !disk.readonly) {
        // What several guests write to is never copied, what both hosts can reach to another place only.
        if (disk.shareable) {
          return [refusal('E_FILE_MISSING', message, 'Mount the storage there at the same path.')];
        }
        const copy =
          copyStorage === 'none' ? COPY : 'name another place with --dest-xml, to which it is copied';
        return [refusal('E_FILE_MISSING', message, `Mount the storage there at the same path, or ${copy}.`)];
      }
      const remedy = 'Put it there at the same path, eject it, or name another place with --dest-xml.';
      return [refusal('E_FILE_MISSING', message, remedy)];
    }
  }
}

/** A file of the same name that is not the same file would be the end of the guest's data. */
function anotherFile(
  facts: DomainFacts,
  disk: Disk,
  path: string,
  inode: number,
  { host }: HostFacts,
): Finding[] {
  const file = imageOf(facts, disk.target)?.file;
  if (disk.readonly || disk.source.type !== 'file' || file === undefined || file.inode === inode) return [];
  const message = `${path} on ${host.name} is another file than disk ${disk.target} on the source (inode ${inode}, not ${file.inode})`;
  // Where file systems number their files on each host by themselves, this says nothing.
  return file.shared
    ? [warning('E_DISK_UNSAFE', message, 'Make sure that both hosts have the same storage mounted.')]
    : [refusal('E_DISK_UNSAFE', message, `Mount the same storage on both hosts, or ${COPY}.`)];
}

/** Firmware, kernels and other files beside the disks. */
/** libvirt makes the file of the firmware's variables before their content comes. */
export function nvramRule({ shape: { nvram } }: DomainFacts, { places, host }: HostFacts): Finding[] {
  if (nvram?.template === undefined) return [];
  const isMissing = (path: string) => places.get(path)?.found === 'nothing';
  if (!isMissing(nvram.path) || !isMissing(nvram.template)) return [];
  return [
    refusal(
      'E_FILE_MISSING',
      `${host.name} has neither the file of the guest's firmware variables, ${nvram.path}, nor ${nvram.template}, of which libvirt makes it`,
      'Install the same firmware there as on the source, at the same path.',
    ),
  ];
}

export function filesRule({ shape }: DomainFacts, { places, host }: HostFacts): Finding[] {
  return shape.files.flatMap(({ what, path }) => {
    const place = places.get(path);
    if (place === undefined || place.found === 'something') return [];
    if (place.found === 'unknown') {
      const message = `whether ${host.name} has the ${what} ${path} is not known: ${place.why}`;
      return [warning('E_FILE_MISSING', message, 'Check that its libvirtd can open it.')];
    }
    return [
      refusal(
        'E_FILE_MISSING',
        `the guest's ${what} is not on ${host.name} at ${path}`,
        'Install or copy it there, at the same path.',
      ),
    ];
  });
}
