/** What tells two definitions of a guest apart: SHA-256 over all that content and workload follow from. */
import { createHash } from 'node:crypto';
import type { Workload } from '../guest-file/schema.ts';
import type { GuestDefinition } from '../workload/streams.ts';

/** 64 hexadecimal digits. A trace counts by what is in it, not by its file's name. */
export function fingerprint({ file, traces }: GuestDefinition): string {
  const digests = new Map(
    Object.entries(traces).map(([name, { reads, writes }]) => {
      const digest = createHash('sha256');
      for (const array of [reads.times, reads.pages, writes.times, writes.pages]) {
        digest.update(`${array.length} `);
        digest.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      }
      return [name, digest.digest('hex')];
    }),
  );
  const { memory, vcpus, seed, content, workload } = file;
  const text = JSON.stringify({ memory, vcpus, seed, content, workload: named(workload, digests) }, sorted);
  return createHash('sha256').update(text).digest('hex');
}

function named(workload: Workload, digests: ReadonlyMap<string, string>): unknown {
  switch (workload.kind) {
    case 'trace':
      return { kind: 'trace', digest: digests.get(workload.file) };
    case 'mix':
      return { kind: 'mix', parts: workload.parts.map((part) => named(part, digests)) };
    case 'phases':
      return {
        kind: 'phases',
        phases: workload.phases.map((phase) => ({ ...phase, workload: named(phase.workload, digests) })),
      };
    default:
      return workload;
  }
}

/** Keys in one order, whichever way they were written. */
function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
