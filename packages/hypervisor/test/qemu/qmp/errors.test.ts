import { expect, it } from 'vitest';
import { asGuestError, QmpError } from '../../../src/qemu/qmp/errors.ts';

it('a QEMU that lacks a command is too old', () => {
  const error = new QmpError('E_QMP_COMMAND', 'QEMU refused query-yank: it has not been found', {
    class: 'CommandNotFound',
    command: 'query-yank',
  });
  expect(asGuestError(error)).toMatchObject({
    code: 'E_UNSUPPORTED',
    message: error.message,
    remedy: 'Use a QEMU of version 6 or newer.',
  });
});
