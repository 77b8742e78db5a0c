import type { Domain } from '@vmferry/native/libvirt/domain';
import { expect, test } from 'vitest';
import { blocksToResume } from '../../../src/libvirt/source/resumable.ts';

const options = { uri: 'qemu:///system', socketDir: '/none', socketDirHere: '/none' };

/** Its QEMU says the status, and has sent more each time that it is asked. */
function domain(status: string) {
  const asked: string[] = [];
  const monitorCommand = async (command: string) => {
    asked.push(command);
    return { status, ram: { total: 1, remaining: 1, transferred: asked.length } };
  };
  return { asked, domain: { name: 'web1', monitorCommand } as unknown as Domain };
}

test('a QEMU that sends memory is not disturbed', async () => {
  const { asked, domain: busy } = domain('postcopy-active');
  await expect(blocksToResume(busy, options)).rejects.toMatchObject({ code: 'E_GUEST_BUSY' });
  expect(new Set(asked)).toEqual(new Set(['query-migrate']));
});

test('one that has sent all needs no resuming, and one that does not migrate has none', async () => {
  expect(await blocksToResume(domain('completed').domain, options)).toBeUndefined();
  await expect(blocksToResume(domain('none').domain, options)).rejects.toMatchObject({
    code: 'E_GUEST_FAILED',
  });
});
