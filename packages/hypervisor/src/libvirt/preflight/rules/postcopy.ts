import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';
import type { PreflightPlan } from '../plan.ts';
import { inUnits, versionText } from './words.ts';

const PRECOPY = 'or use --strategy precopy.';
/** A page has to cross whole before a vCPU that waits for a part of it goes on. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024;
/** `VIR_MIGRATE_POSTCOPY_RESUME`. */
const RESUMES_SINCE = 8_005_000;

export function userfaultfdRule(
  _: DomainFacts,
  { userfaultfd, host }: HostFacts,
  plan: PreflightPlan,
): Finding[] {
  if (!plan.postcopy || userfaultfd.available) return [];
  return [
    refusal(
      'E_NO_USERFAULTFD',
      `QEMU cannot take a guest in by post-copy on ${host.name}: ${userfaultfd.why}`,
      `Set vm.unprivileged_userfaultfd=1 there, run QEMU as root, ${PRECOPY}`,
    ),
  ];
}

/** QEMU would find out only when the guest stands still already. */
export function postcopyMemoryRule(
  { shape }: DomainFacts,
  { defaultHugePageBytes }: HostFacts,
  plan: PreflightPlan,
): Finding[] {
  if (!plan.postcopy) return [];
  const sizes = shape.hugePages.map(({ pageBytes }) =>
    pageBytes === 0 ? (defaultHugePageBytes ?? 0) : pageBytes,
  );
  const largest = Math.max(0, ...sizes);
  return [
    ...(shape.memoryInFiles
      ? [
          refusal(
            'E_NO_USERFAULTFD',
            "post-copy cannot fill the guest's memory: it is a file on a disk, which userfaultfd does not cover",
            `Give the guest memory of the source type memfd, ${PRECOPY}`,
          ),
        ]
      : []),
    ...(largest > MAX_PAGE_BYTES
      ? [
          refusal(
            'E_NO_USERFAULTFD',
            `the guest's memory is of pages of ${inUnits(largest)}; post-copy takes up to ${inUnits(MAX_PAGE_BYTES)}`,
            `Give the guest pages of 2 MiB or less, ${PRECOPY}`,
          ),
        ]
      : []),
  ];
}

export function resumableRule(
  domain: DomainFacts,
  { versions, host }: HostFacts,
  plan: PreflightPlan,
): Finding[] {
  if (!plan.postcopy) return [];
  return [
    { name: domain.host.name, version: domain.versions.libvirt },
    { name: host.name, version: versions.libvirt },
  ]
    .filter(({ version }) => version < RESUMES_SINCE)
    .map(({ name, version }) =>
      warning(
        'E_HYPERVISOR_OLDER',
        `a post-copy that breaks could not be resumed: ${name} has libvirt ${versionText(version)}`,
        `Update it to ${versionText(RESUMES_SINCE)} or newer, ${PRECOPY}`,
      ),
    );
}
