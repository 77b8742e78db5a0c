/** What can be wrong with a domain that is to leave, and what the operator can do about it. */
import { shellWord } from '@vmferry/engine/by-hand';
import { GuestError, messageOf } from '@vmferry/engine/errors';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { asGuestError } from '../errors.ts';

export function givenUp(): GuestError {
  return new GuestError(
    'E_CANCELLED',
    'the migration was given up before libvirt was asked for it',
    'start it again when it is wanted',
  );
}

export function aborted(): GuestError {
  return new GuestError(
    'E_CANCELLED',
    'The migration was aborted through libvirt on the source (virsh domjobabort).',
    'start it again when it is wanted',
  );
}

export function cannotKeep(): GuestError {
  return new GuestError(
    'E_UNSUPPORTED',
    'libvirt ends the domain on the source once it has moved',
    'leave --keep-source out',
  );
}

export function pausedInPostcopy(name: string): GuestError {
  return new GuestError(
    'E_GUEST_BLOCKED',
    `the domain ${name} is paused, and libvirt moves none that is by post-copy`,
    'let it run ("virsh resume"), or use --strategy precopy',
  );
}

export function unfinished(name: string): GuestError {
  return new GuestError(
    'E_GUEST_BLOCKED',
    `a post-copy of the domain ${name} came to a halt and is unfinished`,
    `finish it with "vmferry resume libvirt:${name}"`,
  );
}

export function busy(name: string): GuestError {
  return new GuestError(
    'E_GUEST_BUSY',
    `libvirt has a job under way for the domain ${name}`,
    `wait for it to end, or end it with "virsh domjobabort ${shellWord(name)}"`,
  );
}

export function gone(what: string): GuestError {
  return new GuestError(
    'E_GUEST_GONE',
    what,
    "look into libvirt's and QEMU's logs on the source host; if the guest ended by itself there is nothing to move",
  );
}

/** Its QEMUs go on without it: that is no guest's end. */
export function daemonGone(reason: string): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `the source's libvirtd is gone (${reason})`,
    'see that it runs again, and its log, then start the migration again',
  );
}

export function callsLost(): GuestError {
  return new GuestError(
    'E_LINK_LOST',
    "The link to the destination was lost: libvirt's connection to the destination's libvirt broke",
    "see the logs of both agents; libvirt's own connection is the stream named rpc",
  );
}

/** @param why in QEMU's words */
export function diskFailed(why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `a disk could not be copied to the destination: ${why}`,
    "see that the destination's storage has room and no errors, and that the source's can be read",
  );
}

export function diskLost(): GuestError {
  return new GuestError(
    'E_LINK_LOST',
    "The link to the destination was lost: QEMU's connection to a disk there broke while the disks were copied",
    "see the logs of both agents and of the destination's QEMU; QEMU's connection is the stream named nbd",
  );
}

/** In pre-copy it then takes its guest back, whatever the destination has been asked for. */
export function hungUp(): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    "the source's libvirt gave the migration up when all had been sent, before the commit",
    "see libvirt's log on the source; the guest is its again",
  );
}

export function stuckInPostcopy(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain ${name} is in post-copy, which libvirt never takes back: it is paused, and its migration can be finished`,
    `bring the link and both agents back, then finish the migration with "vmferry resume libvirt:${name}"; do not start the domain on the source`,
  );
}

/** QEMU 10.2 and newer may by itself, as long as it has not noticed that the guest is loaded. */
export function runsAgain(status: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `QEMU's post-copy ended (${status}) before it had noticed that the destination has loaded the guest`,
    "see QEMU's log on the source, and the domain's state on both hosts",
  );
}

export function notSetBack(name: string, downtimeMs: bigint, error: unknown): string {
  return `The domain's maximum downtime could not be set back to ${downtimeMs} ms ("virsh migrate-setmaxdowntime ${shellWord(name)} ${downtimeMs}" does it): ${messageOf(asGuestError(error))}.`;
}

export function stands(name: string, { state, reason }: DomainState): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain does not run again on the source: it is ${state} (${reason})`,
    `remove the cause, make sure that it does not run on the destination, then "virsh resume ${shellWord(name)}" on the source`,
  );
}

export function stalled(ms: number): GuestError {
  return new GuestError(
    'E_STALLED',
    `nothing of the domain's memory has moved for ${ms / 1000} s`,
    'see the state of both hosts and of the link, then run "vmferry resume" again',
  );
}

export function notInPostcopy(name: string, state: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `no unfinished post-copy of ${name} waits on the source: it is ${state}`,
    `see its state on both hosts with "virsh domstate --reason ${shellWord(name)}"`,
  );
}

/** QEMU says that the destination has all of it, and libvirt has not heard of it. */
export function sentAndHere(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `all of the domain ${name} has been sent, and libvirt has not ended it on the source`,
    `see that it runs on the destination ("virsh domstate --reason ${shellWord(name)}"), then end it on the source ("virsh destroy ${shellWord(name)}")`,
  );
}

export function goesOn(name: string): GuestError {
  return new GuestError(
    'E_GUEST_BUSY',
    `the post-copy of ${name} is under way: its QEMU sends memory`,
    `let it come to its end, which "virsh domstate --reason ${shellWord(name)}" shows; if it halts again, run "vmferry resume" again`,
  );
}

/** @param status what QEMU says of its migration, and what no word of anybody's changes */
export function neverResumes(name: string, status: string): GuestError {
  const word = shellWord(name);
  return new GuestError(
    'E_GUEST_FAILED',
    `the source's QEMU of the domain ${name} cannot be resumed: it says "${status}", though its stream has ended`,
    `see the domain on the destination ("virsh domstate --reason ${word}"). If it runs there, and not in post-copy, it has moved: end it on the source ("virsh destroy ${word}"). Otherwise what it did since the switchover is lost: end it on both hosts and start it from its disks`,
  );
}

export function notTakenUp(name: string, ms: number): GuestError {
  return new GuestError(
    'E_STALLED',
    `the domain's memory was not asked for within ${ms / 1000} s: the destination's libvirt or its QEMU does not answer`,
    `run "vmferry resume" again. If it ends so time and again, or libvirt says that another thread has the migration, the destination's QEMU waits for memory in a way in which it hears nobody any more, and what it has is lost: end the domain on both hosts (virsh destroy ${shellWord(name)}) and start it from its disks`,
  );
}
