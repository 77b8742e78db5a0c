/**
 * Can this domain move, as far as that can be told before anything is touched? Everything that is in the way, at once.
 * What the source knows by itself is told there, so that nobody needs to be asked for it; the rest by the destination.
 */
import type { DomainFacts } from './domain-facts.ts';
import type { Finding } from './finding.ts';
import type { HostFacts } from './host-facts.ts';
import type { PreflightPlan } from './plan.ts';
import { clockRule } from './rules/clock.ts';
import { copyTargetRule } from './rules/copies.ts';
import { cpuRule, passthroughRule, pinningRule, vcpusRule } from './rules/cpu.ts';
import { blockJobsRule, boundDevicesRule, failoverRule, snapshotsRule } from './rules/devices.ts';
import {
  backingRule,
  diskCacheRule,
  filesRule,
  localMediaRule,
  nvramRule,
  reachabilityRule,
  sharedStorageRule,
} from './rules/disks.ts';
import { graphicsRule } from './rules/graphics.ts';
import { nameRule, otherHostRule, takenRule } from './rules/identity.ts';
import { deviceKindsRule, emulatorRule, machineRule, ownArgumentsRule } from './rules/machine.ts';
import { hugePagesRule, memoryRule } from './rules/memory.ts';
import { networksRule } from './rules/networks.ts';
import { poolsRule } from './rules/pools.ts';
import { postcopyMemoryRule, resumableRule, userfaultfdRule } from './rules/postcopy.ts';
import { secretsRule } from './rules/secrets.ts';
import { versionsRule } from './rules/versions.ts';

type SourceRule = (domain: DomainFacts, plan: PreflightPlan) => readonly Finding[];
type DestRule = (domain: DomainFacts, host: HostFacts, plan: PreflightPlan) => readonly Finding[];

const sourceRules: readonly SourceRule[] = [
  boundDevicesRule,
  failoverRule,
  snapshotsRule,
  blockJobsRule,
  localMediaRule,
  sharedStorageRule,
];

const destRules: readonly DestRule[] = [
  otherHostRule,
  nameRule,
  takenRule,
  versionsRule,
  machineRule,
  emulatorRule,
  ownArgumentsRule,
  vcpusRule,
  cpuRule,
  passthroughRule,
  pinningRule,
  deviceKindsRule,
  memoryRule,
  hugePagesRule,
  userfaultfdRule,
  postcopyMemoryRule,
  resumableRule,
  diskCacheRule,
  reachabilityRule,
  backingRule,
  poolsRule,
  copyTargetRule,
  secretsRule,
  filesRule,
  nvramRule,
  networksRule,
  graphicsRule,
  clockRule,
];

/** What the source finds by itself. Refusals first. */
export function sourceFindings(domain: DomainFacts, plan: PreflightPlan): Finding[] {
  return refusalsFirst(sourceRules.flatMap((rule) => rule(domain, plan)));
}

/** What the destination finds, disk images apart (`images/`). Refusals first. */
export function destFindings(domain: DomainFacts, host: HostFacts, plan: PreflightPlan): Finding[] {
  return refusalsFirst(destRules.flatMap((rule) => rule(domain, host, plan)));
}

export function refusalsFirst(findings: readonly Finding[]): Finding[] {
  const of = (severity: Finding['severity']) => findings.filter((finding) => finding.severity === severity);
  return [...of('refusal'), ...of('warning')];
}
