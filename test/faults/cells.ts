/** One cell of the matrix: a migration, a moment, a fault, and what must be true afterwards. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Ended, Fault, LibvirtLab } from './libvirt-lab.ts';
import { type Moment, reach } from './moments.ts';

export interface Cell {
  readonly moment: Moment;
  readonly fault: Fault;
  /** From the moment to the fault, ms. Default 0. */
  readonly afterMs?: number;
  /** A libvirtd that is stopped goes on by then. */
  readonly stoppedMs?: number;
}

export const cellName = ({ moment, fault, afterMs = 0 }: Cell): string =>
  `${moment}${afterMs > 0 ? ` + ${afterMs} ms` : ''}, ${fault}`;

/** @throws Error where the domain is lost, runs twice, is damaged, or cannot be finished */
export async function play(lab: LibvirtLab, cell: Cell): Promise<Ended> {
  await lab.renew();
  const { attempt, goOn } = await reach(lab, cell.moment);
  await sleep(cell.afterMs ?? 0);
  await lab.inflict(cell.fault);
  goOn();
  const timer = setTimeout(() => lab.letGoOn(), cell.stoppedMs ?? 60_000);
  try {
    return await lab.settle(attempt);
  } finally {
    clearTimeout(timer);
  }
}
