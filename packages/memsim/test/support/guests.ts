/** Small guests for tests. */
import { guestFileSchema } from '@vmferry/memsim/guest-file/schema';
import type { GuestDefinition } from '@vmferry/memsim/workload/streams';

/** As a guest file has it; 4 MiB and idle unless told otherwise. */
export function guest(file: Record<string, unknown> = {}): GuestDefinition {
  return { file: guestFileSchema.parse({ name: 'tiny', memory: '4MiB', ...file }), traces: {} };
}
