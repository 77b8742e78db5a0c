import { shellWord } from '@vmferry/engine/by-hand';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';

/** Devices that stay where they are. */
export function boundDevicesRule({ shape }: DomainFacts): Finding[] {
  return shape.bound.map(({ what, which }) =>
    refusal(
      'E_DEVICE_BOUND',
      `the guest holds a device that cannot move, a ${what}${which === '' ? '' : `: ${which}`}`,
      `Detach it from the guest (virsh detach-device ${shellWord(shape.name)} FILE.xml), and attach one like it after the migration.`,
    ),
  );
}

/** One half of a failover pair goes, and the guest does with the other. */
export function failoverRule({ shape }: DomainFacts): Finding[] {
  return shape.interfaces
    .filter(({ transient }) => transient)
    .map(({ mac }) =>
      warning(
        'E_DEVICE_BOUND',
        `the network card of the host behind ${mac} is unplugged for the migration, and traffic goes over its virtio partner`,
        'The destination needs a device like it at the same address, or another one by --dest-xml.',
      ),
    );
}

/** libvirt moves no domain of which it is copying, pulling or committing a disk. */
export function blockJobsRule({ shape, blockJobs }: DomainFacts): Finding[] {
  return blockJobs.map(({ target, type }) =>
    refusal(
      'E_GUEST_BUSY',
      `libvirt has a block job under way for disk ${target} (${type})`,
      `Wait for its end (virsh blockjob ${shape.name} ${target}), or end it (virsh blockjob ${shape.name} ${target} --abort).`,
    ),
  );
}

/** libvirt has no way to take them along. */
export function snapshotsRule({ shape, snapshots, checkpoints }: DomainFacts): Finding[] {
  const kept = { snapshot: snapshots, checkpoint: checkpoints };
  return (['snapshot', 'checkpoint'] as const)
    .filter((kind) => kept[kind])
    .map((kind) =>
      refusal(
        'E_GUEST_BLOCKED',
        `libvirt keeps ${kind}s of ${shape.name}, and does not move a domain that has any`,
        `Delete them, or only what libvirt knows of them (virsh ${kind}-delete ${shellWord(shape.name)} NAME --metadata), and define them again there.`,
      ),
    );
}
