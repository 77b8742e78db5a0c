import { GuestError } from '@vmferry/engine/errors';
import type { RamBlock } from '@vmferry/engine/guest';
import { bytes } from '@vmferry/engine/units';
import { humanMonitor, type QmpExecutor } from '../qmp/schema.ts';

/**
 * One line of `info ramblock`: name, page size, offset, used, total (all but the first in hexadecimal);
 * from QEMU 8.0 on host address and "ro" or "rw" follow. Names are right-aligned and may hold anything, so the
 * line is read from its numbers.
 */
const line =
  /^\s*(?<name>.*?)\s+(?<size>\d+(?:\.\d+)?(?:e\+\d+)?) (?<unit>[KMGTPE]i)?B\s+0x[0-9a-f]+\s+0x(?<used>[0-9a-f]+)\s+0x[0-9a-f]+(?:\s+0x(?<address>[0-9a-f]+))?(?:\s|$)/;

const units = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** The blocks that a migration carries, in QEMU's order. */
export async function readRamBlocks(client: QmpExecutor): Promise<RamBlock[]> {
  return parseRamBlocks(await humanMonitor(client, 'info ramblock'));
}

/**
 * Reads the text of `info ramblock`.
 *
 * @throws GuestError E_UNSUPPORTED if it is not of the form that QEMU 6 to 11 print.
 */
export function parseRamBlocks(text: string): RamBlock[] {
  const [header, ...rows] = text.split(/\r?\n/).filter((row) => row.trim() !== '');
  if (!header?.trim().startsWith('Block Name')) throw unreadable(header ?? '');
  // QEMU leaves blocks without a name out of a migration.
  return rows.map(parseRow).filter((block) => block.name !== '');
}

/** Host addresses by name, from the same text; none where QEMU does not print them. */
export function parseHostAddresses(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const row of text.split(/\r?\n/)) {
    const { name = '', address = '' } = line.exec(` ${row}`)?.groups ?? {};
    const at = Number.parseInt(address, 16);
    if (name !== '' && Number.isSafeInteger(at) && at > 0) found.set(name, at);
  }
  return found;
}

function parseRow(row: string): RamBlock {
  const found = line.exec(` ${row}`)?.groups;
  const { name, size, unit, used } = found ?? {};
  if (name === undefined || size === undefined || used === undefined) throw unreadable(row);
  const exponent = unit === undefined ? 0 : units.indexOf(unit) + 1;
  return {
    name,
    bytes: bytes(Number.parseInt(used, 16)),
    hostPageBytes: bytes(Number(size) * 1024 ** exponent),
  };
}

function unreadable(row: string): GuestError {
  return new GuestError(
    'E_UNSUPPORTED',
    `QEMU's list of RAM blocks has a line that vmferry cannot read: ${JSON.stringify(row)}`,
    'Use a QEMU between 6.0 and 11, or report this version.',
  );
}
