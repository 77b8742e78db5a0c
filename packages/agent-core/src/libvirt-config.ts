/** What a destination agent's configuration says of domains of libvirt's that peers bring in. */

import { resolve } from 'node:path';
import { xmlChanges } from '@vmferry/engine/xml-changes';
import { z } from 'zod';

/** Paths are absolute: they are compared with what libvirt is told. */
const directory = z
  .string()
  .max(4096)
  .startsWith('/', 'an absolute path')
  .transform((path) => resolve(path));
/** A path, or a path and where the agent itself sees what libvirt sees there. */
const namedDirectory = z.union([
  directory.transform((path) => ({ path, here: path })),
  z.strictObject({ path: directory, here: directory }),
]);
const directories = z.array(namedDirectory).max(256);

/** Zod's own words but for what was a kind once. */
function faultOf({ input }: { readonly input?: unknown }): string | undefined {
  return input === 'name'
    ? '"name" is no longer a kind of change: --dest-guest gives a domain another name, and needs no permission'
    : undefined;
}

export const libvirtPolicyShape = {
  /** Disk images may be created in these directories and below (`--copy-storage`). By default none may. */
  imageDirectories: directories.default([]),
  /** Backing images of created disks may lie in these as well. */
  baseImageDirectories: directories.default([]),
  /** Disks and media that are there already must lie in these, or in those above. By default anywhere. */
  diskDirectories: directories.optional(),
  /** Emulators that a domain may name, besides those that libvirt found on this host. */
  emulators: z.array(directory).max(256).default([]),
  /** Domains may bring arguments for QEMU of their own (`qemu:commandline`). */
  allowQemuArguments: z.boolean().default(false),
  /** What `--dest-xml` may change. By default nothing. */
  allowXmlChanges: z.array(z.enum(xmlChanges, { error: faultOf })).default([]),
  /** Where the host's own `/` is for the agent, if it runs in a container. */
  hostRoot: directory.optional(),
};

const libvirtPolicySchema = z.object(libvirtPolicyShape);
export type LibvirtPolicy = z.infer<typeof libvirtPolicySchema>;

/** What is not said is the default. */
export function libvirtPolicy(settings: Partial<LibvirtPolicy> = {}): LibvirtPolicy {
  return { ...libvirtPolicySchema.parse({}), ...settings };
}
