/**
 * What a domain's XML says of the things that a migration depends on. It crosses the wire, so it is a schema: whoever
 * receives one checks it first. Sizes are in bytes.
 */
import { z } from 'zod';

const word = z.string().min(1).max(255);
const path = z.string().min(1).max(4096).startsWith('/');
const size = z.int().min(0);
/** CPUs or NUMA nodes of a host. */
const hostIds = z.array(z.int().min(0).max(65_535)).max(65_536);

const imageSource = [
  z.object({ type: z.literal('file'), path }),
  z.object({ type: z.literal('block'), path }),
  z.object({ type: z.literal('volume'), pool: word, volume: word }),
  z.object({ type: z.literal('network'), protocol: word, name: z.string().max(4096) }),
  /** `nvme`, `vhostuser`, `dir`, `vhostvdpa`: on the host itself. */
  z.object({ type: z.literal('other'), kind: word }),
] as const;

const backingSchema = z.object({
  source: z.discriminatedUnion('type', imageSource),
  /** "qcow2", "raw"; "" where the XML does not say. */
  format: z.string().max(64),
});
export type BackingImage = z.infer<typeof backingSchema>;

const diskSchema = z.object({
  /** In the guest: "vda". */
  target: word,
  device: z.enum(['disk', 'cdrom', 'floppy', 'lun']),
  /** `none`: a drive without a medium. */
  source: z.discriminatedUnion('type', [z.object({ type: z.literal('none') }), ...imageSource]),
  /** "qcow2", "raw" */
  format: z.string().max(64),
  /** "none", "writeback", "unsafe", …; "" for the hypervisor's default. */
  cache: z.string().max(64),
  readonly: z.boolean(),
  /** Several guests write to it. */
  shareable: z.boolean(),
  /** libvirt goes on without it where it is missing (`startupPolicy`). */
  optional: z.boolean(),
  /** What is written to it goes when the domain ends (`<transient>`). */
  transient: z.boolean().default(false),
  /** "luks"; "" for one that QEMU does not encrypt. */
  encryption: z.string().max(64).default(''),
  /** From the one right below to the last, as far as the XML tells. */
  backing: z.array(backingSchema).max(256),
  /** Its own XML names them, and so libvirt opens them whatever its image says. */
  backingNamed: z.boolean().default(false),
});
export type Disk = z.infer<typeof diskSchema>;

const interfaceSchema = z.object({
  /** "52:54:00:12:34:56"; "" where the XML has none. */
  mac: z.string().max(32),
  /** libvirt's: "network", "bridge", "direct", "ethernet", "user", … */
  type: word,
  /** The network, bridge or device of the host; "" where the type has none. */
  source: z.string().max(255),
  /** The host's interface, where the operator makes it (`managed="no"`). */
  tap: z.string().max(255),
  /** libvirt takes it off for the migration: one half of a failover pair. */
  transient: z.boolean(),
  /** The filter of libvirt's that its traffic goes through; "" for none. */
  filter: z.string().max(255).default(''),
});
export type DomainInterface = z.infer<typeof interfaceSchema>;

const graphicsSchema = z.object({
  type: z.enum(['vnc', 'spice']),
  listen: z.discriminatedUnion('type', [
    /** "" for what the host's libvirt listens on by default. It may be a name. */
    z.object({ type: z.literal('address'), address: z.string().max(255) }),
    /** The first address of a network of libvirt's. */
    z.object({ type: z.literal('network'), network: z.string().max(255) }),
    /** A socket in the file system, or nothing. */
    z.object({ type: z.literal('none') }),
  ]),
  /** TCP ports that it must have; without those that libvirt chooses. */
  ports: z.array(z.int().min(1).max(65_535)).max(8),
});
export type DomainGraphics = z.infer<typeof graphicsSchema>;

const hugePagesSchema = z.object({
  /** 0: the host's default. */
  pageBytes: size,
  bytes: size,
});

const cpuSchema = z.object({
  /** "custom", "host-model", "host-passthrough", "maximum"; "" for a guest without a `<cpu>`. */
  mode: z.string().max(64),
  /** "" where the mode has none. */
  model: z.string().max(255),
  /** What libvirt checks at a start: "none", "partial", "full", or "". */
  check: z.string().max(64),
  /** `<cpu>` with nothing but what CPUs are compared by. */
  xml: z.string().max(60_000),
});

const secretSchema = z.object({
  /** What it is needed for: "disk vda". */
  what: word,
  uuid: z.string().max(64).optional(),
  /** In place of the UUID. */
  usage: z.string().max(1024).optional(),
});
export type NeededSecret = z.infer<typeof secretSchema>;

export const domainShapeSchema = z.object({
  name: word,
  uuid: z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
  /** "kvm", "qemu" */
  virtType: word,
  architecture: word,
  machine: z.string().max(255),
  emulator: path.optional(),
  vcpus: z.int().min(1).max(65_536),
  cpu: cpuSchema,
  /** With memory devices. */
  memoryBytes: size,
  /** All of it must be resident. */
  memoryLocked: z.boolean(),
  /** Memory is a file in a directory of libvirt's, and neither anonymous, memfd nor huge pages. */
  memoryInFiles: z.boolean(),
  hugePages: z.array(hugePagesSchema).max(1024),
  /** CPUs and NUMA nodes of the host that it is pinned to. */
  pinnedCpus: hostIds,
  pinnedNodes: hostIds,
  disks: z.array(diskSchema).max(1024),
  interfaces: z.array(interfaceSchema).max(1024),
  graphics: z.array(graphicsSchema).max(64).default([]),
  /** Devices that are bound to this host: what each is, and which. */
  bound: z.array(z.object({ what: word, which: z.string().max(1024) })).max(1024),
  /** Files that must be at the same path over there. */
  files: z.array(z.object({ what: word, path })).max(1024),
  /** The file of the firmware's variables, and what libvirt makes it from where it is not there. */
  nvram: z.object({ path, template: path.optional() }).optional(),
  /** Secrets that libvirt has to keep over there as well. */
  secrets: z.array(secretSchema).max(1024).default([]),
  /** Kinds of devices, as domain capabilities list them: `disk`, `bus`, `virtio`. */
  kinds: z.array(z.object({ device: word, aspect: word, value: word })).max(4096),
  /** It was given arguments for QEMU that libvirt does not know (`qemu:commandline` and the like). */
  ownArguments: z.boolean(),
});
export type DomainShape = z.infer<typeof domainShapeSchema>;
