/** What an operator asks for. One schema serves the command line, the operator's API and the agents. */
import { z } from 'zod';
import { AnnounceInputError, parseAnnounceIp } from './guest-address.ts';

export const strategies = ['auto', 'precopy', 'postcopy', 'hybrid'] as const;
export type Strategy = (typeof strategies)[number];
/** A strategy that has been decided on. */
export type ChosenStrategy = Exclude<Strategy, 'auto'>;

export const stallActions = ['postcopy', 'throttle', 'stop', 'abort'] as const;
export const storageCopies = ['none', 'all', 'inc'] as const;
export const compressModes = ['auto', 'off', 'lz4', 'lz4hc'] as const;

/** "qemu:/run/vm/qmp.sock", "libvirt:NAME", "sim:NAME" */
const guestUri = z
  .string()
  .max(4096)
  .regex(/^(qemu|libvirt|sim):.+/, 'a guest is qemu:/PATH/TO/QMP.SOCK, libvirt:NAME or sim:NAME');

/** "10.0.0.2", "fd00::2", or for one of several NICs "52:54:00:12:34:56=10.0.0.2". */
const announceIp = z
  .string()
  .max(64)
  .regex(/^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}=)?[0-9a-fA-F:.]+$/, {
    error: 'an address is IP or MAC=IP',
    abort: true,
  })
  // As the wire will have it.
  .refine((text) => z.union([z.ipv4(), z.ipv6()]).safeParse(text.slice(text.indexOf('=') + 1)).success, {
    error: 'not an IPv4 or IPv6 address',
    abort: true,
  })
  .superRefine((text, context) => {
    try {
      parseAnnounceIp(text);
    } catch (error) {
      if (!(error instanceof AnnounceInputError)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
    }
  });

export const migrateRequestSchema = z.strictObject({
  guest: guestUri,
  /** URL of the destination agent, ws:// or wss:// */
  to: z.string().max(2048),
  /** The guest as the destination names it; by default the same URI. */
  destGuest: guestUri.optional(),
  strategy: z.enum(strategies).default('auto'),
  /** Milliseconds. */
  maxDowntimeMs: z.number().min(1).max(2_000_000).default(300),
  /** Milliseconds for the whole migration; none by default. */
  deadlineMs: z.number().min(1).max(604_800_000).optional(),
  /** Post-copy: how long memory goes ahead of the guest, milliseconds; 0: none does. See `policy/head-start`. */
  headStartMs: z.number().min(0).max(60_000).optional(),
  /** Bytes per second on the link; 0 is no limit. */
  maxBandwidth: z.number().min(0).max(1e12).default(0),
  streams: z.int().min(1).max(16).default(1),
  compress: z.enum(compressModes).default('auto'),
  onStall: z.enum(stallActions).optional(),
  announceIps: z.array(announceIp).max(64).default([]),
  /** Socket of the guest agent on the source host, to learn the guest's addresses. */
  guestAgent: z.string().max(4096).optional(),
  /** After success the source's hypervisor is ended; otherwise it stays, paused. */
  destroySource: z.boolean().default(true),
  /** Finishes a post-copy that came to a halt, instead of beginning a migration. */
  resume: z.boolean().optional(),
  /** libvirt: the source's definition of the domain goes once it has moved. */
  undefineSource: z.boolean().optional(),
  /** libvirt: the domain's XML on the destination, as far as that one's configuration lets it differ. */
  destXml: z
    .string()
    .max(512 * 1024)
    .optional(),
  /** libvirt: disks that the hosts do not share are copied: whole, or what lies above their backing files. */
  copyStorage: z.enum(storageCopies).optional(),
  /** Refuse ws:// to other hosts unless set. */
  insecure: z.boolean().default(false),
});

export type MigrateRequest = z.infer<typeof migrateRequestSchema>;
export type MigrateRequestInput = z.input<typeof migrateRequestSchema>;
