import { errorCodes, errorDomains } from '@vmferry/native/libvirt/error-names';
import { libvirtFailure } from '@vmferry/native/libvirt/errors';
import { expect, test } from 'vitest';
import type { DomainEvents } from '../../../src/libvirt/domain-events.ts';
import type { Rendezvous } from '../../../src/libvirt/rendezvous.ts';
import { MigrateCall } from '../../../src/libvirt/source/call.ts';
import type { SourceDomain } from '../../../src/libvirt/source/domain.ts';

const failure = (
  code: 'VIR_ERR_OPERATION_ABORTED' | 'VIR_ERR_INTERNAL_ERROR',
  domain: 'VIR_FROM_QEMU' | 'VIR_FROM_RPC',
) =>
  libvirtFailure({
    ...{ code: 0, message: 'it ended', call: 'virDomainMigrateToURI3', level: 2, details: [] },
    ...{ number: errorCodes[code], domain: errorDomains[domain] },
  });

/** A call that libvirt answers so; what is done while it is under way. */
async function aborted(
  answer: ReturnType<typeof failure>,
  meanwhile: (call: MigrateCall) => void,
): Promise<boolean> {
  const handle = { migrateToUri: () => Promise.reject(answer) };
  const call = new MigrateCall({ handle } as unknown as SourceDomain);
  meanwhile(call);
  await call.make({ there: () => '/run/rpc' } as unknown as Rendezvous, async () => ({ flags: [] }));
  return await call.abortedByOthers();
}

test('a job that was cancelled, and not from here, was aborted by another client', async () => {
  expect(
    await aborted(failure('VIR_ERR_OPERATION_ABORTED', 'VIR_FROM_QEMU'), (call) =>
      call.cancelled(Date.now()),
    ),
  ).toBe(true);
  const cutOff = failure('VIR_ERR_INTERNAL_ERROR', 'VIR_FROM_RPC');
  expect(await aborted(cutOff, (call) => call.cancelled(Date.now()))).toBe(true);
});

test('so was one of which that is heard only after what followed from it', async () => {
  const late = (call: MigrateCall) => {
    const cancelledMs = Date.now() - 1;
    call.explained();
    call.cancelled(cancelledMs);
  };
  expect(await aborted(failure('VIR_ERR_OPERATION_ABORTED', 'VIR_FROM_QEMU'), late)).toBe(true);
});

test('one that was given up here, or that libvirt gave up by itself, was not', async () => {
  const givenUp = (call: MigrateCall) => {
    call.giveUp();
    call.cancelled(Date.now());
  };
  const failing = (call: MigrateCall) => {
    call.explained();
    call.cancelled(Date.now());
  };
  for (const meanwhile of [givenUp, failing, () => {}]) {
    expect(await aborted(failure('VIR_ERR_OPERATION_ABORTED', 'VIR_FROM_QEMU'), meanwhile)).toBe(false);
  }
});

test('a call that went well is the end of a migration, also where QEMU was ended before it said so', async () => {
  const handle = { migrateToUri: () => Promise.resolve() };
  const call = new MigrateCall({ handle, lost: false } as unknown as SourceDomain);
  call.listen({ next: () => new Promise(() => {}) } as unknown as DomainEvents);
  await call.make({ there: () => '/run/rpc' } as unknown as Rendezvous, async () => ({ flags: [] }));
  await expect(call.completed(() => true)).resolves.toBeUndefined();
});
