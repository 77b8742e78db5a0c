import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

/** libvirt gives QEMU what opens a disk, and takes it from its own host. Whether a secret has a value is not asked. */
export function secretsRule({ shape }: DomainFacts, { secrets, host }: HostFacts): Finding[] {
  if (secrets === undefined) return [];
  return shape.secrets.flatMap(({ what, uuid, usage }) => {
    const found = secrets.some((secret) =>
      uuid === undefined ? usage !== undefined && secret.usage === usage : secret.uuid === uuid,
    );
    if (found) return [];
    return [
      refusal(
        'E_FILE_MISSING',
        `${what} needs the secret ${uuid ?? `"${usage ?? ''}"`}, which libvirt on ${host.name} does not have`,
        'Define it there with the same UUID and usage (virsh secret-define), and give it its value (virsh secret-set-value).',
      ),
    ];
  });
}
