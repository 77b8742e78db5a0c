import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

const MOST_MS = 1000;
/** What the source knew has had its way here, and waited for other questions to be answered. */
const WAY_MS = 4000;

/** The guest's clock goes by the host's, and jumps with the move. */
export function clockRule({ wallClockMs }: DomainFacts, { wallClockMs: here, host }: HostFacts): Finding[] {
  const difference = here - wallClockMs;
  if (difference >= -MOST_MS && difference <= MOST_MS + WAY_MS) return [];
  const seconds = (Math.abs(difference) / 1000).toFixed(1);
  return [
    warning(
      'E_CLOCK_APART',
      `the clock of ${host.name} is ${seconds} s ${difference > 0 ? 'ahead of' : 'behind'} the source's`,
      'Synchronise both hosts (chrony, systemd-timesyncd): the guest takes the difference for its own time.',
    ),
  ];
}
