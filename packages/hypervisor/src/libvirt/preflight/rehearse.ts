/**
 * A preflight of a domain that nobody has, so that the first real one is as fast as later ones: libvirt finds out what its
 * emulators can do when it is first asked, which takes it seconds, and this process has run none of the code.
 */
import { stat } from 'node:fs/promises';
import { letGo, openLibvirt } from '../answer.ts';
import { asking } from '../errors.ts';
import { daemonSockets, type LibvirtOptions } from '../options.ts';
import { readDomain } from '../xml/domain.ts';
import { type DestPolicy, destPreflight } from './dest.ts';
import { parseDomainFacts } from './domain-facts.ts';
import { sourceHost } from './gather-domain.ts';

const DOMAIN = `<domain type='qemu'>
  <name>vmferry-rehearsal</name><uuid>00000000-0000-4000-8000-000000000000</uuid>
  <memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'><model fallback='forbid'>qemu64</model></cpu>
  <devices><interface type='bridge'><mac address='52:54:00:00:00:00'/><source bridge='br0'/></interface></devices>
</domain>`;

/**
 * Whether there is a libvirt here. Changes nothing, and what would be found does not matter.
 *
 * @throws GuestError when it does not answer
 */
export async function rehearsePreflight(options: LibvirtOptions, policy: DestPolicy): Promise<boolean> {
  return await asking(async () => {
    const sockets = await Promise.all(daemonSockets(options.uri).map((path) => stat(path).catch(() => {})));
    if (sockets.every((found) => found === undefined)) return false;
    const connection = await openLibvirt(options.uri);
    try {
      const { uuid, name, versions } = await sourceHost(connection);
      const facts = parseDomainFacts({
        shape: readDomain(DOMAIN),
        images: [],
        host: { uuid, name },
        hostCpuXml: '',
        cpu: { verdict: 'usable' },
        versions,
        snapshots: false,
        checkpoints: false,
        blockJobs: [],
        copyStorage: 'none',
        copied: [],
        wallClockMs: Date.now(),
      });
      await destPreflight(connection, facts, { postcopy: true, policy });
      return true;
    } finally {
      await letGo(connection.close());
    }
  });
}
