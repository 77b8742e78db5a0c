/** What an operator does by hand with a guest, in the commands of what keeps it. */

export interface ByHand {
  /** Lets the paused guest run: `virsh resume web1`. */
  readonly run: string;
  /** Ends it. */
  readonly end: string;
  /** Tells how it stands. */
  readonly state: string;
  /** Finishes a post-copy that came to a halt. A clause: `finish it with ...`. */
  readonly finish: string;
}

/** Of a guest that somebody runs without a management layer. */
export const QEMU_BY_HAND: ByHand = {
  run: 'QEMU: cont',
  end: 'QEMU: quit',
  state: 'QEMU: query-status',
  finish: 'the README ("When something fails") says how QEMU finishes it',
};

/** @param guest its URI on that host */
export function byHand(guest: string): ByHand {
  const scheme = 'libvirt:';
  if (!guest.startsWith(scheme)) return QEMU_BY_HAND;
  const [name = '', uri] = guest.slice(scheme.length).split('?connect=');
  const virsh = uri === undefined ? 'virsh' : `virsh -c ${shellWord(uri)}`;
  return {
    run: `${virsh} resume ${shellWord(name)}`,
    end: `${virsh} destroy ${shellWord(name)}`,
    state: `${virsh} domstate --reason ${shellWord(name)}`,
    finish: `finish it with "vmferry resume ${shellWord(guest)}"`,
  };
}

/** As a shell takes it for one word. */
export function shellWord(text: string): string {
  return /^[\w.,:/=+@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
