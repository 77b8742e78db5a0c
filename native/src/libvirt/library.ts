/** libvirt itself, loaded when it is first used. */
import { addon } from '../addon.ts';
import { NativeError, nativeThrown } from '../errors.ts';
import { requireFeature } from '../features.ts';
import type { LibvirtTable } from './table.ts';

const DEFAULT_LIBRARY = 'libvirt.so.0';

let loaded: { readonly table: LibvirtTable; readonly version: number } | undefined;

/**
 * Loads libvirt the first time. `VMFERRY_LIBVIRT` names another libvirt.so.0, beside which libvirt-qemu.so.0 lies.
 * Throws `E_NATIVE_MISSING`: built without libvirt, or there is none on this host.
 */
function load(): { readonly table: LibvirtTable; readonly version: number } {
  requireFeature('libvirt');
  const table = addon().libvirt!;
  const library = process.env['VMFERRY_LIBVIRT'] ?? DEFAULT_LIBRARY;
  const qemuLibrary = library.replace(/libvirt(\.so[^/]*)$/, 'libvirt-qemu$1');
  try {
    return { table, version: table.load(library, qemuLibrary) };
  } catch (thrown) {
    const error = nativeThrown(thrown);
    if (!(error instanceof NativeError) || error.code !== 'E_NATIVE_MISSING') throw error;
    throw new NativeError(
      'E_NATIVE_MISSING',
      `libvirt cannot be used on this host: ${error.message}. Install libvirt0 (7.2 or newer)`,
    );
  }
}

export function libvirt(): LibvirtTable {
  loaded ??= load();
  return loaded.table;
}

/** Of the library on this host; 9000000 is 9.0.0. The daemon's may be another. */
export function libraryVersion(): number {
  loaded ??= load();
  return loaded.version;
}
