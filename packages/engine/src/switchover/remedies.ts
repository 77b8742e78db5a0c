/** What there is to do for an operator, by the phase in which the machines need one. */
import { type ByHand, QEMU_BY_HAND } from '../by-hand.ts';
import type { DestState } from './dest-state.ts';
import type { SourceState } from './source-state.ts';

/** On the destination: its guest has ended in post-copy. */
export const DEST_ENDED =
  'The guest has ended here, and what it did since the switchover is only on its disks. What is left of it on the source is from before, and must never run: end it there, then start the guest from its disks.';

/** On the source, of the same. */
export function guestEndedThere(state: SourceState): string {
  return `The guest has ended on the destination, and what it did since the switchover is only on its disks. What is left of it on the source is from before, and must never run: end it (${handsOf(state).here.end}), then start the guest from its disks.`;
}

/** The source's hypervisor has ended in post-copy, with pages that were not sent. */
export function memoryLost(state: SourceState): string {
  return `The guest stands still on the destination as soon as it needs what is lost, and nothing can bring that back: end it there (${handsOf(state).there.end}), then start it from its disks.`;
}

export function sourceRemedy(state: SourceState): string {
  const { here, there } = handsOf(state);
  switch (state.phase) {
    case 'lost':
      return `The source still holds the guest, paused: let it run there (${here.run}).`;
    case 'rolling-back':
      return `The guest belongs to the source. End what is left of it on the destination (${there.end}), then let it run on the source (${here.run}).`;
    case 'uncommitting':
      return `Make room for the source's journal. The destination was never told to run the guest: end what is left of it there (${there.end}), then let it run on the source (${here.run}).`;
    default:
      return state.mode === 'precopy' || state.ended
        ? `The guest belongs to the destination, which has all of it: if it does not run there, let it run there (${there.run}). Never let it run on the source.`
        : `The guest belongs to the destination, and part of its memory is still on the source: keep both hypervisors, and never let it run on the source; ${here.finish}.`;
  }
}

export function destRemedy(state: DestState): string {
  const { run, end, finish } = state.hands ?? QEMU_BY_HAND;
  switch (state.phase) {
    case 'ready':
      return `Only the source's journal (STATE_DIR/journal/SESSION-source.journal) knows the outcome. If its last line says committed or done, let the guest run here (${run}). If it says anything else, end the guest here (${end}), and let it run on the source.`;
    case 'running':
      return `The source still holds memory of the guest: keep both hypervisors, and never let it run on the source; ${finish}.`;
    case 'accepting':
      return `The guest was committed to this host. Make room for the destination's journal, then let it run here (${run}), never on the source.`;
    case 'discarding':
      return `The guest never ran here and never may. The agent goes on trying to end it; or end it on the destination (${end}).`;
    default:
      return `The guest was committed to this host. Mend the cause, then let it run here (${run}), never on the source.`;
  }
}

function handsOf({ hands }: SourceState): { readonly here: ByHand; readonly there: ByHand } {
  return hands ?? { here: QEMU_BY_HAND, there: QEMU_BY_HAND };
}
