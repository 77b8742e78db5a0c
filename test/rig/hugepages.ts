import { readFile, writeFile } from 'node:fs/promises';

const COUNT = '/proc/sys/vm/nr_hugepages';

export class HugepagesError extends Error {
  readonly code = 'TEST_NO_HUGEPAGES';
}

/** Reserves huge pages of 2 MiB on top of what the machine has; the result gives them back. */
export async function reserveHugepages(mib: number): Promise<() => Promise<void>> {
  const before = Number(await readFile(COUNT, 'utf8'));
  const wanted = before + Math.ceil(mib / 2);
  const giveBack = () => writeFile(COUNT, String(before));
  await writeFile(COUNT, String(wanted));
  const got = Number(await readFile(COUNT, 'utf8'));
  if (got < wanted) {
    await giveBack();
    throw new HugepagesError(`${mib} MiB of huge pages asked, ${(got - before) * 2} MiB to be had`);
  }
  return giveBack;
}
