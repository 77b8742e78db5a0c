/** Parameters of a migration, by the names of libvirt's fields (VIR_MIGRATE_PARAM_*) without their punctuation. */
import { boundsError } from '../errors.ts';
import { type ParameterType, parameter } from './parameters.ts';
import type { ParameterEntry } from './table.ts';

export interface MigrationParameters {
  /** Where QEMU's stream goes: `tcp://HOST:PORT`, `unix:///PATH`. Without it the destination chooses. */
  readonly migrateUri?: string;
  readonly destinationName?: string;
  /** The domain's XML on the destination, as running. What the guest can see must not change. */
  readonly destinationXml?: string;
  /** The definition that the destination keeps (with `persist-destination`). */
  readonly persistentXml?: string;
  /** MiB/s; 0 for no limit. */
  readonly bandwidth?: number | bigint;
  /** MiB/s in post-copy; 0 for no limit. */
  readonly postCopyBandwidth?: number | bigint;
  readonly graphicsUri?: string;
  readonly listenAddress?: string;
  /** Targets (`vda`) of the disks to copy; without it all that are neither shared nor read-only. */
  readonly disks?: readonly string[];
  /** Of the NBD server, 1 to 65535. */
  readonly disksPort?: number;
  /** Where disks go: `tcp://HOST:PORT`, `unix:///PATH`. */
  readonly disksUri?: string;
  readonly compression?: readonly ('xbzrle' | 'mt')[];
  readonly compressionLevel?: number;
  readonly compressionThreads?: number;
  readonly decompressionThreads?: number;
  /** Bytes. */
  readonly xbzrleCache?: number | bigint;
  /** Per cent by which the guest's CPUs are slowed at first, and each time more. */
  readonly autoConvergeInitial?: number;
  readonly autoConvergeIncrement?: number;
  readonly parallelConnections?: number;
  readonly tlsDestination?: string;
}

type Field = keyof MigrationParameters;

const fields: Readonly<Record<Field, readonly [field: string, type: ParameterType]>> = {
  migrateUri: ['migrate_uri', 'string'],
  destinationName: ['destination_name', 'string'],
  destinationXml: ['destination_xml', 'string'],
  persistentXml: ['persistent_xml', 'string'],
  bandwidth: ['bandwidth', 'ullong'],
  postCopyBandwidth: ['bandwidth.postcopy', 'ullong'],
  graphicsUri: ['graphics_uri', 'string'],
  listenAddress: ['listen_address', 'string'],
  disks: ['migrate_disks', 'string'],
  disksPort: ['disks_port', 'int'],
  disksUri: ['disks_uri', 'string'],
  compression: ['compression', 'string'],
  compressionLevel: ['compression.mt.level', 'int'],
  compressionThreads: ['compression.mt.threads', 'int'],
  decompressionThreads: ['compression.mt.dthreads', 'int'],
  xbzrleCache: ['compression.xbzrle.cache', 'ullong'],
  autoConvergeInitial: ['auto_converge.initial', 'int'],
  autoConvergeIncrement: ['auto_converge.increment', 'int'],
  parallelConnections: ['parallel.connections', 'int'],
  tlsDestination: ['tls.destination', 'string'],
};

/** For the addon. Throws `E_NATIVE_BOUNDS` for a field that is not known or a value that is not of its type. */
export function migrationParameters(parameters: MigrationParameters): ParameterEntry[] {
  return Object.entries(parameters).flatMap(([name, value]) => {
    if (value === undefined) return [];
    if (!Object.hasOwn(fields, name)) throw boundsError(`a migration has no parameter '${name}'`);
    const [field, type] = fields[name as Field];
    const several = name === 'disks' || name === 'compression';
    if (several !== Array.isArray(value)) {
      throw boundsError(`${name} must ${several ? '' : 'not '}be an array`);
    }
    return (several ? value : [value]).map((each: string) => parameter(field, type, each));
  });
}
