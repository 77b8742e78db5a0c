/** Asks the source's libvirt, and looks at files, for what preflight wants to know of a domain. Changes nothing. */
import { stat } from 'node:fs/promises';
import { GuestError } from '@vmferry/engine/errors';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import type { Domain } from '@vmferry/native/libvirt/domain';
import { isLibvirtError, LibvirtError } from '@vmferry/native/libvirt/errors';
import { monitorOf } from '../monitor.ts';
import { readHostCapabilities } from '../xml/capabilities.ts';
import { readDomain } from '../xml/domain.ts';
import { type Disk, type DomainShape, domainShapeSchema } from '../xml/domain-shape.ts';
import { XmlError } from '../xml/tree.ts';
import { deviceIdentity } from './block-device.ts';
import { disksToCopy } from './copied-disks.ts';
import { cpuVerdict } from './cpu-verdict.ts';
import { type DiskImage, type DomainFacts, domainFactsSchema, splitXml } from './domain-facts.ts';
import { FileSystems } from './file-systems.ts';
import { openImageSizes, takenBytes } from './image-sizes.ts';
import type { CopyStorage } from './plan.ts';

/** What the operator asks for. */
export interface DomainWish {
  readonly copyStorage: CopyStorage;
  /** The domain's name over there. */
  readonly destName?: string | undefined;
  /** The domain over there, whole. */
  readonly destXml?: string | undefined;
}

/** What libvirt says of the host that the domain is on. */
export interface SourceHost {
  readonly uuid: string;
  readonly name: string;
  readonly cpuXml: string;
  readonly versions: DomainFacts['versions'];
}

/**
 * It depends on no domain, and takes libvirt a while: to be asked for as early as can be.
 *
 * @throws LibvirtError when libvirt does not answer
 */
export async function sourceHost({ host }: LibvirtConnection): Promise<SourceHost> {
  const [capabilities, name, libvirt, hypervisor] = await Promise.all([
    host.capabilities(),
    host.hostname(),
    host.daemonVersion(),
    host.hypervisorVersion(),
  ]);
  const { uuid, cpuXml } = readHostCapabilities(capabilities);
  return { uuid, name, cpuXml, versions: { libvirt, hypervisor } };
}

/**
 * @throws GuestError E_DEST_XML when the operator's XML is none, E_UNSUPPORTED when libvirt's own is not understood,
 *   E_LIMIT when there is more of it than crosses the wire
 * @throws LibvirtError when libvirt does not answer
 */
export async function gatherDomain(
  connection: LibvirtConnection,
  domain: Domain,
  { copyStorage, destName, destXml }: DomainWish,
  ofHost: Promise<SourceHost> = sourceHost(connection),
): Promise<DomainFacts> {
  const active = await domain.isActive();
  const current = active ? [] : (['inactive'] as const);
  // With its secrets only where the operator's has some, too.
  const secrets = destXml !== undefined && /\spasswd=/.test(destXml) ? (['secure'] as const) : [];
  const [migratable, full] = await Promise.all([
    domain.xml([...current, ...secrets, 'migratable']),
    domain.xml([...current]),
  ]);
  const own = understood(migratable);
  const wanted = destXml === undefined ? own : wantedShape(destXml);
  const { uuid, name, cpuXml, versions } = await ofHost;
  const hostCpuXml = own.cpu.mode === 'host-passthrough' ? cpuXml : '';
  const [cpu, images, blockJobs, snapshots, checkpoints] = await Promise.all([
    cpuVerdict(connection.host, own, { hostCpuXml, machine: own.machine }),
    lookAtImages(connection, domain, own.disks),
    active ? blockJobsOf(domain, own.disks) : [],
    isListed(connection, domain, 'snapshots'),
    isListed(connection, domain, 'checkpoints'),
  ]);
  return checked({
    shape: {
      ...wanted,
      name: destName ?? wanted.name,
      disks: withBacking(wanted.disks, understood(full).disks),
    },
    images,
    host: { uuid, name },
    hostCpuXml,
    cpu,
    versions,
    snapshots,
    checkpoints,
    blockJobs,
    copyStorage,
    copied: disksToCopy({ copyStorage, disks: own.disks, wanted: wanted.disks, images }),
    ...(destXml === undefined ? {} : { change: { from: splitXml(migratable), to: splitXml(destXml) } }),
    wallClockMs: Date.now(),
  });
}

function understood(xml: string): DomainShape {
  try {
    return readDomain(xml);
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause;
    const message = `libvirt's XML of the domain is not understood: ${cause.message}`;
    throw new GuestError('E_UNSUPPORTED', message, 'Report it, with virsh dumpxml --migratable.', { cause });
  }
}

function wantedShape(xml: string): DomainShape {
  try {
    const shape = readDomain(xml);
    const [issue] = domainShapeSchema.safeParse(shape).error?.issues ?? [];
    if (issue === undefined) return shape;
    throw notUsable(`${issue.path.join('.')}: ${issue.message}`);
  } catch (cause) {
    if (!(cause instanceof XmlError)) throw cause;
    throw notUsable(cause.message, cause);
  }
}

function notUsable(why: string, cause?: XmlError): GuestError {
  const message = `what is given with --dest-xml cannot be used: ${why}`;
  const remedy = 'Start from virsh dumpxml --migratable and change what differs.';
  return new GuestError('E_DEST_XML', message, remedy, { cause });
}

function checked(facts: DomainFacts): DomainFacts {
  const result = domainFactsSchema.safeParse(facts);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new GuestError(
    'E_LIMIT',
    `the domain is more than preflight takes: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
    'Report it, with virsh dumpxml --migratable.',
    { cause: result.error },
  );
}

/** What lies below an image libvirt tells only of the domain as it runs. */
function withBacking(wanted: readonly Disk[], running: readonly Disk[]): Disk[] {
  return wanted.map((disk) => {
    const own = running.find(({ target }) => target === disk.target);
    return disk.backing.length > 0 || own === undefined ? disk : { ...disk, backing: own.backing };
  });
}

async function lookAtImages(
  connection: LibvirtConnection,
  domain: Domain,
  disks: readonly Disk[],
): Promise<DiskImage[]> {
  const systems = await FileSystems.read();
  const volumes = disks.some(({ source }) => source.type === 'volume')
    ? await pathsOfDisks(connection, domain)
    : new Map<string, string>();
  const images: DiskImage[] = [];
  const runs = await domain.isActive();
  // Asked once, and only where it is needed: libvirt marks a domain whose QEMU is asked.
  let sizes: ReturnType<typeof openImageSizes> | undefined;
  const openSize = async (path: string): Promise<number | undefined> => {
    if (!runs) return undefined;
    sizes ??= openImageSizes(monitorOf(domain));
    return (await sizes).get(path);
  };
  for (const disk of disks) {
    if (disk.source.type !== 'none')
      images.push(await lookAtImage(domain, disk, { systems, volumes, runs, openSize }));
  }
  return images;
}

/** Where libvirt has what runs, by target: "" for what it reaches over the network. Of volumes nothing else tells. */
async function pathsOfDisks(
  connection: LibvirtConnection,
  domain: Domain,
): Promise<ReadonlyMap<string, string>> {
  const [of] = await connection.statistics([domain], ['block']).catch((error: unknown) => {
    if (error instanceof LibvirtError) return [];
    throw error;
  });
  const { statistics = {} } = of ?? {};
  const found = new Map<string, string>();
  for (let index = 0; index < Number(statistics['block.count'] ?? 0); index += 1) {
    const [target, path] = [statistics[`block.${index}.name`], statistics[`block.${index}.path`]];
    if (target !== undefined) found.set(String(target), String(path ?? ''));
  }
  return found;
}

interface Known {
  readonly systems: FileSystems;
  readonly volumes: ReadonlyMap<string, string>;
  readonly runs: boolean;
  /** What its QEMU says that the image takes. */
  readonly openSize: (path: string) => Promise<number | undefined>;
}

async function lookAtImage(
  domain: Domain,
  { target, source }: Disk,
  { systems, volumes, runs, openSize }: Known,
): Promise<DiskImage> {
  const info = await domain.blockInfo(target).catch((error: unknown) => {
    // libvirt cannot tell for every kind of source.
    if (error instanceof LibvirtError) return undefined;
    throw error;
  });
  const path = 'path' in source ? source.path : source.type === 'volume' ? volumes.get(target) : undefined;
  const seen = path ? await lookAtPath(path, systems) : undefined;
  const allocated =
    seen?.allocatedBytes ?? takenBytes(info, path && !seen ? await openSize(path) : undefined, runs);
  return {
    target,
    ...(info === undefined ? {} : { virtualBytes: Number(info.capacityBytes) }),
    ...(allocated === undefined ? {} : { allocatedBytes: allocated }),
    ...(path ? { path } : {}),
    ...(path === '' ? { networked: true } : {}),
    ...(seen?.file === undefined ? {} : { file: seen.file }),
    ...(seen?.device === undefined ? {} : { device: seen.device }),
  };
}

interface Seen {
  readonly allocatedBytes?: number;
  readonly file?: NonNullable<DiskImage['file']>;
  readonly device?: string | undefined;
}

/** Undefined where this agent does not see it: libvirt may. */
async function lookAtPath(path: string, systems: FileSystems): Promise<Seen | undefined> {
  try {
    const found = await stat(path);
    if (found.isBlockDevice()) return { device: await deviceIdentity(found.rdev, '/sys') };
    const { filesystem, shared } = await systems.of(path);
    return { allocatedBytes: found.blocks * 512, file: { inode: found.ino, filesystem, shared } };
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined;
    throw error;
  }
}

async function blockJobsOf(domain: Domain, disks: readonly Disk[]): Promise<DomainFacts['blockJobs']> {
  const jobs = await Promise.all(
    disks
      .filter(({ source }) => source.type !== 'none')
      .map(async ({ target }) => {
        const job = await domain.blockJob(target).catch((error: unknown) => {
          // A driver that has none.
          if (error instanceof LibvirtError) return undefined;
          throw error;
        });
        return job === undefined ? [] : [{ target, type: job.type }];
      }),
  );
  return jobs.flat();
}

async function isListed(
  connection: LibvirtConnection,
  domain: Domain,
  flag: 'snapshots' | 'checkpoints',
): Promise<boolean> {
  try {
    return (await connection.domains([flag])).some(({ uuid }) => uuid === domain.uuid);
  } catch (error) {
    // A driver that has none.
    if (isLibvirtError(error, 'VIR_ERR_NO_SUPPORT', 'VIR_ERR_INVALID_ARG')) return false;
    throw error;
  }
}
