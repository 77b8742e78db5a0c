/** A domain's QEMU as the readers of the QEMU driver ask it, through libvirt. For commands that only ask. */
import type { Domain } from '@vmferry/native/libvirt/domain';
import { MonitorCommandError } from '@vmferry/native/libvirt/errors';
import { QmpError } from '../qemu/qmp/errors.ts';
import type { QmpExecutor } from '../qemu/qmp/schema.ts';
import { answerOf } from './answer.ts';

export function monitorOf(domain: Domain): QmpExecutor {
  return {
    async execute(command, args) {
      try {
        return await answerOf(`got QEMU's answer to ${command}`, domain.monitorCommand(command, args));
      } catch (error) {
        if (!(error instanceof MonitorCommandError)) throw error;
        throw new QmpError(
          'E_QMP_COMMAND',
          error.message,
          { class: error.errorClass, command },
          { cause: error },
        );
      }
    },
  };
}
