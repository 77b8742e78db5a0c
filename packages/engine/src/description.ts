/** The guest's description as it crosses the wire: checked before anything is believed of it. */
import { z } from 'zod';
import type { GuestDescription } from './guest.ts';
import type { Bytes } from './units.ts';

const size = z
  .int()
  .min(0)
  .transform((n) => n as Bytes);
const name = z.string().max(4096);

const schema = z.object({
  kind: z.enum(['qemu', 'libvirt', 'sim']),
  name,
  hypervisorVersion: name,
  machine: name,
  vcpus: z.int().min(1).max(65_536),
  cpu: z
    .object({
      model: z.string().max(255),
      features: z
        .array(z.object({ word: z.string().max(64), bits: z.int().min(0).max(0xffff_ffff) }))
        .max(256),
    })
    .exactOptional(),
  memoryBytes: size,
  blocks: z.array(z.object({ name: z.string().min(1).max(255), bytes: size, hostPageBytes: size })).max(4096),
  sharedMemory: z
    .array(z.object({ block: name, path: name, file: z.string().max(128) }))
    .max(4096)
    .exactOptional(),
  nics: z
    .array(
      z.object({
        mac: z.string().max(32),
        name,
        hostInterface: z.string().max(64).exactOptional(),
        addresses: z.array(z.string().max(64)).max(64),
      }),
    )
    .max(64),
  running: z.boolean(),
  oneLiveRound: z.boolean().default(false),
  libvirt: z
    .object({
      uuid: z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'not a UUID'),
      socketDir: z.string().max(4096),
      rendezvous: z.string().regex(/^[0-9a-f]{24}$/, 'not 24 hexadecimal digits'),
    })
    .exactOptional(),
  preflight: z.unknown().optional(),
});

/** @throws z.ZodError */
export function parseDescription(value: unknown): GuestDescription {
  return schema.parse(value);
}
