/** What the source knows of a domain, as it goes to the destination's preflight. Sizes in bytes, times in milliseconds. */
import { GuestError } from '@vmferry/engine/errors';
import { z } from 'zod';
import { domainShapeSchema } from '../xml/domain-shape.ts';
import { copyStorageModes } from './plan.ts';

const size = z.int().min(0);

/** Of a disk's own image, the topmost. */
const imageSchema = z.object({
  /** The disk's. */
  target: z.string().min(1).max(255),
  /** What the guest sees; absent where nobody could tell. */
  virtualBytes: size.optional(),
  /** What it takes on its host. */
  allocatedBytes: size.optional(),
  /** Where libvirt has it on the source; absent for network disks. */
  path: z.string().max(4096).optional(),
  /** Of a volume whose pool is on the network. */
  networked: z.boolean().optional(),
  /** Of a block device: which it is (`deviceIdentity`); absent where that cannot be told. */
  device: z.string().max(600).optional(),
  /** Where the source agent sees it, too. */
  file: z
    .object({
      inode: size,
      /** "ext4", "nfs4"; "" where that could not be told. */
      filesystem: z.string().max(64),
      /** Of a kind that several hosts can have mounted. */
      shared: z.boolean(),
    })
    .optional(),
});
export type DiskImage = z.infer<typeof imageSchema>;

export const hostVersionsSchema = z.object({
  /** 9000000 is 9.0.0. */
  libvirt: z.int().min(0),
  /** 7002022 is 7.2.22. */
  hypervisor: z.int().min(0),
});
export type HostVersions = z.infer<typeof hostVersionsSchema>;

/** What libvirt says of a CPU on a host. */
export const cpuVerdictSchema = z.discriminatedUnion('verdict', [
  z.object({ verdict: z.literal('usable') }),
  z.object({ verdict: z.literal('incompatible'), why: z.string().max(2048) }),
  /** It could not say. */
  z.object({ verdict: z.literal('unknown'), why: z.string().max(2048) }),
]);
export type CpuVerdict = z.infer<typeof cpuVerdictSchema>;

/** The wire has bounds for a string. */
const MAX_PIECE = 32_768;
const xmlPieces = z.array(z.string().max(MAX_PIECE)).max(16);

export function splitXml(xml: string): string[] {
  return Array.from({ length: Math.ceil(xml.length / MAX_PIECE) }, (_, index) =>
    xml.slice(index * MAX_PIECE, (index + 1) * MAX_PIECE),
  );
}

export const joinXml = (pieces: readonly string[]): string => pieces.join('');

export const domainFactsSchema = z.object({
  /** As it is to be at the destination. */
  shape: domainShapeSchema,
  images: z.array(imageSchema).max(1024),
  host: z.object({ uuid: z.string().max(64), name: z.string().max(255) }),
  /** `<cpu>` of the source's host, for guests that were given just that; "" otherwise. */
  hostCpuXml: z.string().max(60_000),
  /** Of the guest's CPU, on the source. */
  cpu: cpuVerdictSchema,
  versions: hostVersionsSchema,
  /** libvirt keeps snapshots of it. */
  snapshots: z.boolean(),
  checkpoints: z.boolean(),
  /** Targets of disks with which libvirt has a job under way, and which: "commit". */
  blockJobs: z
    .array(z.object({ target: z.string().min(1).max(255), type: z.string().max(64) }))
    .max(1024)
    .default([]),
  /** What is to be done with disks that the hosts do not share. */
  copyStorage: z.enum(copyStorageModes),
  /** Targets of the disks that libvirt is told to copy. */
  copied: z.array(z.string().min(1).max(255)).max(1024),
  /** The domain's XML as it is and as the operator wants it there, in pieces that cross the wire (`joinXml`). */
  change: z.object({ from: xmlPieces, to: xmlPieces }).optional(),
  /** The source's wall clock, when all this was known. */
  wallClockMs: z.number(),
});
export type DomainFacts = z.infer<typeof domainFactsSchema>;

/** @throws GuestError E_PROTOCOL when this is none */
export function parseDomainFacts(value: unknown): DomainFacts {
  const parsed = domainFactsSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new GuestError(
    'E_PROTOCOL',
    `what the source tells of the domain is not valid: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
    'Run the same version of vmferry on both hosts.',
    { cause: parsed.error },
  );
}

export function imageOf(facts: DomainFacts, target: string): DiskImage | undefined {
  return facts.images.find((image) => image.target === target);
}
