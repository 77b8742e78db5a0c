/** Which process is a domain's QEMU: libvirtd has it in a file, in its own view of the file system. */
import { readFile } from 'node:fs/promises';

/**
 * Undefined where it cannot be told for certain. `daemonPid`: libvirtd, as the peer of a socket.
 *
 * QEMU's own command line has to name the domain's UUID: a file that was left behind proves nothing.
 */
export async function qemuPid(
  daemonPid: number | undefined,
  domain: { readonly name: string; readonly uuid: string },
): Promise<number | undefined> {
  if (daemonPid === undefined) return undefined;
  try {
    const file = `/proc/${daemonPid}/root/run/libvirt/qemu/${domain.name}.pid`;
    const pid = Number.parseInt(await readFile(file, 'latin1'), 10);
    const args = (await readFile(`/proc/${pid}/cmdline`, 'latin1')).split('\0');
    const at = args.indexOf('-uuid');
    return at >= 0 && args[at + 1] === domain.uuid ? pid : undefined;
  } catch {
    // Another user's, in another container, or ended.
    return undefined;
  }
}
