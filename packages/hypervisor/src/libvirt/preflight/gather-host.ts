/** Asks the destination's libvirt, and looks at its host, for what preflight wants to know. Changes nothing. */
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { isLibvirtError, LibvirtError } from '@vmferry/native/libvirt/errors';
import type { LibvirtHost } from '@vmferry/native/libvirt/host';
import type { DomainState } from '@vmferry/native/libvirt/states';
import { ifThere } from '../if-there.ts';
import { type HostCapabilities, readDomainCapabilities, readHostCapabilities } from '../xml/capabilities.ts';
import { interfacesOf } from '../xml/domain.ts';
import type { DomainShape } from '../xml/domain-shape.ts';
import { XmlError } from '../xml/tree.ts';
import { cpuVerdict } from './cpu-verdict.ts';
import type { DomainFacts } from './domain-facts.ts';
import type {
  HostFacts,
  HostPages,
  KnownDomain,
  KnownNetwork,
  KnownVolume,
  MachineSupport,
  Neighbour,
} from './host-facts.ts';
import type { HostView } from './host-view.ts';

export interface HostPolicy {
  /** Emulators that a domain may name, besides those that libvirt found. */
  readonly emulators: readonly string[];
  /** Domains may bring arguments for QEMU that libvirt does not know. */
  readonly allowQemuArguments: boolean;
}

const KiB = 1024;

/**
 * @param view the host as this agent sees it
 * @throws LibvirtError when libvirt does not answer
 */
export async function gatherHost(
  connection: LibvirtConnection,
  domain: DomainFacts,
  { view, policy }: { readonly view: HostView; readonly policy: HostPolicy },
): Promise<HostFacts> {
  // First, because the source's was taken last.
  const wallClockMs = Date.now();
  const { host } = connection;
  const { shape } = domain;
  // libvirt takes some of these a while, and all at once no longer than the slowest.
  const itself = host.capabilities().then(readHostCapabilities);
  const machineAndCpu = async () => {
    const support = await machineSupport(
      host,
      shape,
      async () => (await itself).guest(shape.architecture).machines,
    );
    const machine = support.machine.supported ? shape.machine : undefined;
    const cpu = await cpuVerdict(host, shape, { hostCpuXml: domain.hostCpuXml, machine });
    return { ...support, cpu };
  };
  const versionsAndFaults = async () => {
    const [hypervisor, libvirt, { qemuUser }] = await Promise.all([
      host.hypervisorVersion(),
      host.daemonVersion(),
      itself,
    ]);
    return {
      versions: { libvirt, hypervisor },
      userfaultfd: await view.userfaultfd({ qemuUser, hypervisor }),
    };
  };
  const pagesOf = async (): Promise<readonly HostPages[]> =>
    shape.hugePages.length === 0 ? [] : await freeHugePages(host, await itself);
  const volumesAndPlaces = async () => {
    const volumes = await volumesOf(host, shape);
    return { volumes, places: await view.places(pathsOf(domain, volumes)) };
  };
  const [
    capabilities,
    ofMachine,
    ofVersions,
    name,
    memory,
    pages,
    defaultHugePageBytes,
    networks,
    networkFilters,
    secrets,
    interfaces,
    domains,
    neighbours,
    listening,
    ofStorage,
  ] = await Promise.all([
    itself,
    machineAndCpu(),
    versionsAndFaults(),
    host.hostname(),
    memoryOf(host),
    pagesOf(),
    view.defaultHugePageBytes(),
    networksOf(host),
    shape.interfaces.some(({ filter }) => filter !== '') ? ifOffered(host.networkFilters()) : undefined,
    shape.secrets.length > 0 ? ifOffered(host.secrets()) : undefined,
    view.interfaces(),
    domainsLike(connection, shape),
    shape.interfaces.length > 0 ? neighboursOf(connection) : [],
    shape.graphics.length > 0 ? view.listening() : undefined,
    volumesAndPlaces(),
  ]);
  return {
    host: { uuid: capabilities.uuid, name },
    ...ofMachine,
    ...ofVersions,
    emulators: [...capabilities.guest(shape.architecture).emulators, ...policy.emulators],
    memory,
    pages,
    defaultHugePageBytes,
    cpus: capabilities.nodes.flatMap(({ cpus }) => cpus),
    nodes: capabilities.nodes.map(({ id }) => id),
    networks,
    networkFilters: networkFilters && new Set(networkFilters),
    secrets,
    interfaces,
    domains,
    neighbours,
    listening,
    ...ofStorage,
    ownArgumentsAllowed: policy.allowQemuArguments,
    qemuUser: capabilities.qemuUser,
    wallClockMs,
  };
}

/** The domain's emulator is not named here: libvirt would start what another host's XML says. */
async function machineSupport(
  host: LibvirtHost,
  { architecture, machine, virtType }: DomainShape,
  offered: () => Promise<readonly string[]>,
): Promise<{ machine: MachineSupport; kinds: ReadonlyMap<string, readonly string[]> }> {
  try {
    const choice = { architecture, virtType, ...(machine === '' ? {} : { machine }) };
    const { maxVcpus, kinds } = readDomainCapabilities(await host.domainCapabilities(choice));
    return { machine: { supported: true, maxVcpus }, kinds };
  } catch (error) {
    if (!(error instanceof LibvirtError)) throw error;
    // A driver that cannot be asked says nothing of machines.
    if (error.code === 'VIR_ERR_NO_SUPPORT') {
      return { machine: { supported: true, maxVcpus: Number.POSITIVE_INFINITY }, kinds: new Map() };
    }
    return { machine: { supported: false, why: error.message, offered: await offered() }, kinds: new Map() };
  }
}

async function memoryOf(host: LibvirtHost): Promise<HostFacts['memory']> {
  const stats = await host.memoryStats();
  const bytes = (name: string) => Number(stats[name] ?? 0n) * KiB;
  return {
    totalBytes: bytes('total'),
    availableBytes: bytes('free') + bytes('buffers') + bytes('cached'),
  };
}

async function freeHugePages(
  host: LibvirtHost,
  { pageSizes, nodes }: HostCapabilities,
): Promise<HostPages[]> {
  const sizes = pageSizes.filter((size) => size > 4 * KiB);
  if (sizes.length === 0) return [];
  const kib = sizes.map((size) => size / KiB);
  const free = await Promise.all(nodes.map(({ id }) => host.freePages(kib, id)));
  return sizes.map((pageBytes, index) => ({
    pageBytes,
    free: free.reduce((sum, ofNode) => sum + Number(ofNode[index] ?? 0n), 0),
  }));
}

async function networksOf(host: LibvirtHost): Promise<ReadonlyMap<string, KnownNetwork>> {
  return new Map((await host.networks()).map(({ name, active, bridge }) => [name, { active, bridge }]));
}

/** Undefined where the driver has nothing of the kind. */
async function ifOffered<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isLibvirtError(error, 'VIR_ERR_NO_SUPPORT')) return undefined;
    throw error;
  }
}

/** By the targets of the disks that are volumes. */
async function volumesOf(
  host: LibvirtHost,
  { disks }: DomainShape,
): Promise<ReadonlyMap<string, KnownVolume>> {
  if (!disks.some(({ source }) => source.type === 'volume')) return new Map();
  const pools = await ifOffered(host.pools());
  if (pools === undefined) return new Map();
  const active = new Map(pools.map((pool) => [pool.name, pool.active]));
  const found = disks.map(
    async ({ target, source }): Promise<readonly (readonly [string, KnownVolume])[]> => {
      if (source.type !== 'volume') return [];
      const isActive = active.get(source.pool);
      if (isActive !== true) return [[target, { found: isActive === false ? 'inactive-pool' : 'no-pool' }]];
      return [[target, await volumeOf(host, source)]];
    },
  );
  return new Map((await Promise.all(found)).flat());
}

async function volumeOf(
  host: LibvirtHost,
  { pool, volume }: { readonly pool: string; readonly volume: string },
): Promise<KnownVolume> {
  try {
    const { type, path } = await host.volume(pool, volume);
    return { found: 'volume', type, path };
  } catch (error) {
    if (isLibvirtError(error, 'VIR_ERR_NO_STORAGE_VOL')) return { found: 'nothing' };
    // It went meanwhile.
    if (isLibvirtError(error, 'VIR_ERR_NO_STORAGE_POOL')) return { found: 'no-pool' };
    throw error;
  }
}

async function domainsLike(
  connection: LibvirtConnection,
  { name, uuid }: DomainShape,
): Promise<KnownDomain[]> {
  const like = (await connection.domains()).filter((each) => each.name === name || each.uuid === uuid);
  const found = await Promise.all(
    like.map(async (each) => {
      const state = await ifThere(() => each.state());
      return state === undefined ? [] : [{ name: each.name, uuid: each.uuid, state: knownState(state) }];
    }),
  );
  return found.flat();
}

async function neighboursOf(connection: LibvirtConnection): Promise<Neighbour[]> {
  const running = await connection.domains(['active']);
  const found = await Promise.all(
    running.map(async (domain) => {
      const { name, uuid } = domain;
      const xml = await ifThere(() => domain.xml());
      return xml === undefined ? [] : [{ name, uuid, interfaces: readInterfaces(xml) }];
    }),
  );
  return found.flat();
}

/** What another domain has that is not understood is no matter of this one's. */
function readInterfaces(xml: string): Neighbour['interfaces'] {
  try {
    return interfacesOf(xml);
  } catch (error) {
    if (error instanceof XmlError) return [];
    throw error;
  }
}

function knownState({ state, reason }: DomainState): KnownDomain['state'] {
  if (state === 'shut-off') return 'inactive';
  return state === 'paused' && (reason === 'migration' || reason === 'starting-up') ? 'coming-in' : 'active';
}

function pathsOf(
  { shape: { disks, files, nvram } }: DomainFacts,
  volumes: ReadonlyMap<string, KnownVolume>,
): string[] {
  const ofDisks = disks.flatMap(({ target, source, backing }) => {
    const volume = volumes.get(target);
    const path = 'path' in source ? source.path : volume?.found === 'volume' ? volume.path : undefined;
    const below = backing.flatMap((image) => ('path' in image.source ? [image.source.path] : []));
    return [...(path === undefined ? [] : [path]), ...below];
  });
  const ofFirmware = nvram === undefined ? [] : [nvram.path, ...(nvram.template ? [nvram.template] : [])];
  return [...ofDisks, ...files.map(({ path }) => path), ...ofFirmware];
}
