/** Which device a block device is, whatever it is called and on whichever host it is seen. */
import { readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Of sysfs, whatever the device's own are. */
const SECTOR_BYTES = 512;

/**
 * "dm:LVM-…" or "wwid:naa.6001405…", and a partition's with its number. Two that begin alike, up to the colon, can be
 * compared. Undefined where the kernel has nothing that would be the same on another host: loop devices, NBD, DRBD.
 * Source: Documentation/ABI of Linux (`sysfs-block-dm`, `sysfs-block-device`).
 *
 * @param rdev as `stat` has it
 * @param sysfs where `/sys` is
 */
export async function deviceIdentity(rdev: number, sysfs: string): Promise<string | undefined> {
  const device = await realpath(join(sysfs, 'dev', 'block', numbersOf(rdev))).catch(absent);
  if (device === undefined) return undefined;
  const partition = await read(device, 'partition');
  const whole = await wholeIdentity(partition === undefined ? device : dirname(device));
  return whole === undefined || partition === undefined ? whole : `${whole} partition ${partition}`;
}

/** What it holds; undefined where that cannot be told. Parameters as `deviceIdentity`. */
export async function deviceBytes(rdev: number, sysfs: string): Promise<number | undefined> {
  const sectors = await read(join(sysfs, 'dev', 'block', numbersOf(rdev)), 'size');
  return sectors === undefined ? undefined : Number(sectors) * SECTOR_BYTES;
}

async function wholeIdentity(device: string): Promise<string | undefined> {
  const mapped = await read(device, 'dm/uuid');
  if (mapped !== undefined) return `dm:${isEncrypted(mapped) ? withoutName(mapped) : mapped}`;
  // NVMe has it at the disk, SCSI at what it is the disk of.
  const wwid = (await read(device, 'wwid')) ?? (await read(device, 'device/wwid'));
  return wwid === undefined ? undefined : `wwid:${wwid}`;
}

/** "CRYPT-LUKS2-UUID-NAME": the name is its host's own choice. */
const isEncrypted = (uuid: string): boolean => uuid.startsWith('CRYPT-');
const withoutName = (uuid: string): string => uuid.split('-').slice(0, 3).join('-');

/** "253:0". Source: `makedev(3)`. */
function numbersOf(rdev: number): string {
  const wide = BigInt(rdev);
  const major = ((wide >> 8n) & 0xfffn) | ((wide >> 32n) & ~0xfffn);
  const minor = (wide & 0xffn) | ((wide >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** What an attribute says; undefined where it is missing or empty. */
async function read(device: string, attribute: string): Promise<string | undefined> {
  const text = await readFile(join(device, attribute), 'utf8').catch(absent);
  return text?.trim().slice(0, 512) || undefined;
}

function absent(error: unknown): undefined {
  if (!(error instanceof Error && 'code' in error)) throw error;
  return undefined;
}
