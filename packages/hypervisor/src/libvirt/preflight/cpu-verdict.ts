import { isLibvirtError, LibvirtError } from '@vmferry/native/libvirt/errors';
import type { LibvirtHost } from '@vmferry/native/libvirt/host';
import { comparableCpu } from '../xml/domain.ts';
import type { DomainShape } from '../xml/domain-shape.ts';
import type { CpuVerdict } from './domain-facts.ts';

/** Of libvirt's words. */
const MOST_WORDS = 1000;

/**
 * Whether a host can give a guest its CPU, by libvirt's own comparison.
 *
 * @param hostCpuXml the CPU of the host that the guest runs on, for one that was given just that
 * @param machine undefined where the host does not know the guest's
 */
export async function cpuVerdict(
  host: LibvirtHost,
  shape: Pick<DomainShape, 'cpu' | 'architecture' | 'virtType'>,
  { hostCpuXml, machine }: { readonly hostCpuXml: string; readonly machine: string | undefined },
): Promise<CpuVerdict> {
  const { mode, xml } = shape.cpu;
  const { architecture, virtType } = shape;
  switch (mode) {
    case 'host-passthrough':
      if (hostCpuXml === '')
        return { verdict: 'unknown', why: 'libvirt does not tell what CPU the source has' };
      return await judged(() => host.compareCpu(hostCpuXml, ['fail-incompatible']));
    case 'custom': {
      const choice = { architecture, virtType, ...(machine ? { machine } : {}) };
      return await judged(() => host.compareHypervisorCpu(comparableCpu(xml), choice, ['fail-incompatible']));
    }
    // None was asked for; or it is chosen when the guest starts, which this one has not yet.
    default:
      return { verdict: 'usable' };
  }
}

async function judged(compare: () => Promise<string>): Promise<CpuVerdict> {
  try {
    const result = await compare();
    return result === 'incompatible'
      ? { verdict: 'incompatible', why: 'libvirt says so, without a reason' }
      : { verdict: 'usable' };
  } catch (error) {
    if (!(error instanceof LibvirtError)) throw error;
    const why = error.message.slice(0, MOST_WORDS);
    return { verdict: isLibvirtError(error, 'VIR_ERR_CPU_INCOMPATIBLE') ? 'incompatible' : 'unknown', why };
  }
}
