/** What a failure on the destination's side is called, and what an examination that found something comes to. */
import { PayloadError } from '@vmferry/engine/carriage/payload-error';
import { type ErrorCode, GuestError, messageOf } from '@vmferry/engine/errors';
import type { SwitchoverReport } from '@vmferry/engine/switchover/protocol';
import { WireError } from '@vmferry/wire/errors';
import { MAX_SENTENCE } from '@vmferry/wire/messages';

export function failureOf(error: unknown): { code: ErrorCode; why: string } {
  if (error instanceof GuestError) return { code: error.code, why: error.message };
  if (error instanceof PayloadError || error instanceof WireError)
    return { code: 'E_PROTOCOL', why: error.message };
  return { code: 'E_INTERNAL', why: messageOf(error) };
}

/** The guest runs here and no failure of the switchover: only an operator can say what is to become of it. */
export function damaged(error: GuestError): SwitchoverReport {
  return {
    type: 'report',
    outcome: 'attention',
    code: error.code,
    why: error.message,
    guestRunsOn: 'dest',
    remedy: error.remedy,
  };
}

export function damageOf({ code, message, remedy }: GuestError): {
  code: string;
  message: string;
  remedy: string;
} {
  return { code, message: message.slice(0, MAX_SENTENCE), remedy: remedy.slice(0, MAX_SENTENCE) };
}

export function unexamined(cause: unknown): GuestError {
  const why = messageOf(cause);
  return new GuestError(
    'E_GUEST_DAMAGED',
    `the guest could not be examined on the destination: ${why}`,
    "see the destination agent's log",
    { cause },
  );
}
