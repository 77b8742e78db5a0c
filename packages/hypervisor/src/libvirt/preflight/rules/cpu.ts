import { shellWord } from '@vmferry/engine/by-hand';
import type { DomainFacts } from '../domain-facts.ts';
import { type Finding, refusal, warning } from '../finding.ts';
import type { HostFacts } from '../host-facts.ts';

const REMEDY =
  'Move it to a host with such a CPU, or give the guest a model that both hosts have (virsh hypervisor-cpu-baseline), which takes a restart.';

/** The guest has been told what its CPU can do, and must find just that. */
export function cpuRule({ shape, cpu: there }: DomainFacts, { cpu: here, host }: HostFacts): Finding[] {
  const { mode, model, check } = shape.cpu;
  const named = model === '' ? `CPU (${mode})` : `CPU ${model}`;
  switch (here.verdict) {
    case 'usable':
      return [];
    case 'unknown':
      return [
        warning(
          'E_CPU_INCOMPATIBLE',
          `whether ${host.name} can give the guest its ${named} is not known: ${here.why}`,
          'Compare the CPUs with virsh hypervisor-cpu-compare.',
        ),
      ];
    case 'incompatible':
      // Nobody held the model against the host when the guest started: it has what the source could give.
      return check === 'none' && there.verdict === 'incompatible'
        ? [
            warning(
              'E_CPU_INCOMPATIBLE',
              `neither host has all of the guest's ${named}, which is not checked when it starts: ${here.why}`,
              'Make sure that both hosts have the same CPU, or let libvirt check it (check="partial").',
            ),
          ]
        : [
            refusal(
              'E_CPU_INCOMPATIBLE',
              `${host.name} cannot give the guest its ${named}: ${here.why}`,
              REMEDY,
            ),
          ];
  }
}

/** "host-passthrough" shows the guest a CPU that only the same one is. */
export function passthroughRule({ shape, host: source }: DomainFacts, { host }: HostFacts): Finding[] {
  if (shape.cpu.mode !== 'host-passthrough') return [];
  return [
    warning(
      'E_CPU_INCOMPATIBLE',
      `the guest has the CPU of ${source.name} itself (host-passthrough), and has to find the very same on ${host.name}`,
      'Make sure that CPU, microcode and QEMU are the same on both hosts.',
    ),
  ];
}

export function vcpusRule({ shape }: DomainFacts, { machine, host }: HostFacts): Finding[] {
  if (!machine.supported || shape.vcpus <= machine.maxVcpus) return [];
  return [
    refusal(
      'E_MACHINE_UNKNOWN',
      `the guest has ${shape.vcpus} vCPUs, and ${shape.machine} on ${host.name} takes ${machine.maxVcpus}`,
      'Update QEMU on the destination.',
    ),
  ];
}

/** CPUs and nodes that it is pinned to. */
export function pinningRule({ shape }: DomainFacts, { cpus, nodes, host }: HostFacts): Finding[] {
  const missing = (wanted: readonly number[], there: readonly number[]) =>
    there.length === 0 ? [] : wanted.filter((id) => !there.includes(id));
  const finding = (what: string, ids: readonly number[]) =>
    ids.length === 0
      ? []
      : [
          refusal(
            'E_CPU_INCOMPATIBLE',
            `the guest is pinned to ${what} ${ids.join(', ')}, which ${host.name} does not have`,
            `Change the pinning (virsh vcpupin or numatune ${shellWord(shape.name)}), or change it for the destination with --dest-xml.`,
          ),
        ];
  return [
    ...finding('CPU', missing(shape.pinnedCpus, cpus)),
    ...finding('NUMA node', missing(shape.pinnedNodes, nodes)),
  ];
}
