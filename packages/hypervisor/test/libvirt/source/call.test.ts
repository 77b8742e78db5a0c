import { expect, test } from 'vitest';
import type { DomainEvents } from '../../../src/libvirt/domain-events.ts';
import type { Rendezvous } from '../../../src/libvirt/rendezvous.ts';
import { MigrateCall } from '../../../src/libvirt/source/call.ts';
import type { SourceDomain } from '../../../src/libvirt/source/domain.ts';

test('a call that went well is the end of a migration, also where QEMU was ended before it said so', async () => {
  const handle = { migrateToUri: () => Promise.resolve() };
  const call = new MigrateCall({ handle, lost: false } as unknown as SourceDomain);
  call.listen({ next: () => new Promise(() => {}) } as unknown as DomainEvents);
  await call.make({ there: () => '/run/rpc' } as unknown as Rendezvous, async () => ({ flags: [] }));
  await expect(call.completed(() => true)).resolves.toBeUndefined();
});
