/** What can be wrong with a domain that is to enter, and what the operator can do about it. */
import { shellWord } from '@vmferry/engine/by-hand';
import { GuestError, messageOf } from '@vmferry/engine/errors';

export function otherLibvirt(uri: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `the destination agent does not connect to ${uri} for others`,
    'name the domain alone with --dest-guest libvirt:NAME; --libvirt gives that agent its libvirt',
  );
}

export function otherKind(kind: string): GuestError {
  return new GuestError(
    'E_GUEST_MISMATCH',
    `a guest of the kind ${kind} cannot enter libvirt`,
    'name a destination guest of the same kind with --dest-guest',
  );
}

export function notHalted(name: string, state: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `no unfinished post-copy of ${name} waits on the destination: it is ${state}`,
    `see its state on both hosts with "virsh domstate --reason ${shellWord(name)}"`,
  );
}

export function endedThere(name: string): GuestError {
  return new GuestError(
    'E_GUEST_GONE',
    `the domain ${name} has ended on the destination: its post-copy cannot be finished, and what it did since the switchover is only on its disks`,
    `what is left of it on the source is from before, and must never run: end it there ("virsh destroy ${shellWord(name)}"), then start the domain from its disks`,
  );
}

export function movedAlready(name: string): GuestError {
  return new GuestError(
    'E_GUEST_MOVED',
    `nothing is left to finish: the destination has all of the domain ${name}`,
    'none',
  );
}

export function gone(what: string): GuestError {
  return new GuestError('E_GUEST_GONE', what, "look into libvirt's and QEMU's logs on the destination host");
}

/** Its QEMUs go on without it: that is no guest's end. */
export function daemonGone(reason: string): GuestError {
  return new GuestError(
    'E_GUEST_UNREACHABLE',
    `the destination's libvirtd is gone (${reason})`,
    "see that it runs again, and its log; then see the domain's state on both hosts",
  );
}

export function notFinished(why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain could not be run on the destination: ${why}`,
    "see libvirt's log on the destination, and the domain's state on both hosts",
  );
}

export function notTakenIn(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `libvirt's connection for the domain ${name} came when its migration was over`,
    'none: the source has the guest',
  );
}

export function neverAsked(name: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain ${name} cannot be run: the link broke in post-copy, before the source's libvirt asked to finish the migration`,
    `its memory cannot be brought together any more: end the domain on both hosts (virsh destroy ${shellWord(name)}), then start it from its disks`,
  );
}

export function kept(name: string, why: string): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `the domain ${name} is kept on the destination: ${why}`,
    `see its state on both hosts with "virsh domstate --reason ${shellWord(name)}"; "vmferry resume" finishes a paused post-copy`,
  );
}

export function otherDirectory(theirs: string, own: string): GuestError {
  return new GuestError(
    'E_CONFIG',
    `the agents keep libvirt's sockets in different directories: ${theirs} on the source, ${own} on the destination`,
    'give both agents the same libvirt.socketDir',
  );
}

export function otherDomain(name: string, uuid: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `the source's libvirt brings the domain ${name} (${uuid}), which is not what was let in`,
    'see who has access to the source agent',
  );
}

export function notLoaded(): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    "the destination's QEMU could not load the guest",
    "look into QEMU's log on the destination host: a device that differs from the source's is the usual reason",
  );
}

export function nobodyThere(path: string, cause: unknown): GuestError {
  return new GuestError(
    'E_GUEST_FAILED',
    `nobody takes connections at ${path} on the destination: ${messageOf(cause)}`,
    'check that libvirtd runs there, and the directory of sockets in the agent’s configuration',
    { cause },
  );
}
