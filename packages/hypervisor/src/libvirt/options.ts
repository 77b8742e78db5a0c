/** How an agent gets at the libvirt of its host, and how a guest's URI says which. */
import { GuestError } from '@vmferry/engine/errors';

export interface LibvirtOptions {
  /** Of the libvirtd of the agent's own host. */
  readonly uri: string;
  /** Where the sockets of migrations are made, as libvirtd and its QEMUs see it. The same on both hosts. */
  readonly socketDir: string;
  /** The same directory as the agent sees it, where that is another path (libvirtd in a container). */
  readonly socketDirHere: string;
}

/** What an agent is told, with the defaults. */
export function libvirtOptions(
  settings: { readonly [Key in keyof LibvirtOptions]?: string | undefined } = {},
): LibvirtOptions {
  const { uri = 'qemu:///system', socketDir = '/run/vmferry', socketDirHere = socketDir } = settings;
  return { uri, socketDir, socketDirHere };
}

export interface DomainAddress {
  readonly name: string;
  readonly uri: string;
}

/**
 * Reads what stands behind `libvirt:`, which is NAME or NAME?connect=URI.
 *
 * @throws GuestError E_USAGE
 */
export function parseDomainAddress(text: string, defaultUri: string): DomainAddress {
  const mark = text.lastIndexOf('?connect=');
  const name = mark < 0 ? text : text.slice(0, mark);
  if (name === '') {
    throw new GuestError(
      'E_USAGE',
      `libvirt:${text} names no domain`,
      'write libvirt:NAME or libvirt:NAME?connect=URI',
    );
  }
  return { name, uri: mark < 0 ? defaultUri : text.slice(mark + '?connect='.length) };
}

/**
 * The UNIX sockets on which a libvirtd may listen that this URI leads to; the first that is there is the one.
 *
 * @throws GuestError E_UNSUPPORTED for a libvirtd that is not of this host
 */
export function daemonSockets(uri: string): readonly string[] {
  const parsed = /^qemu(?<transport>\+[a-z0-9]+)?:\/\/(?<host>[^/]*)\/system(?:\?(?<query>.*))?$/.exec(
    uri,
  )?.groups;
  const { transport, host, query } = parsed ?? {};
  if (parsed === undefined || host !== '' || (transport !== undefined && transport !== '+unix')) {
    throw new GuestError(
      'E_UNSUPPORTED',
      `${uri} is not the libvirt of this host`,
      'run the agent on the host itself, with qemu:///system or qemu+unix:///system?socket=PATH',
    );
  }
  const socket = new URLSearchParams(query ?? '').get('socket');
  if (socket !== null) return [socket];
  return ['/run/libvirt/virtqemud-sock', '/run/libvirt/libvirt-sock'];
}
