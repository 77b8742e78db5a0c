/**
 * Reads a domain's XML. Source: libvirt's `formatdomain` page. What it does not know it leaves alone; what it knows and
 * cannot be is an `XmlError`.
 */
import {
  boundDevices,
  deviceKinds,
  encryptionOf,
  neededSecrets,
  nvramOf,
  requiredFiles,
} from './domain-needs.ts';
import type { Disk, DomainInterface, DomainShape } from './domain-shape.ts';
import { readGraphics } from './graphics.ts';
import { parseDocument, toXml, XmlElement, XmlError } from './tree.ts';

const QEMU_NAMESPACE = 'http://libvirt.org/schemas/domain/qemu/1.0';

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  KB: 1e3,
  k: 1024,
  KiB: 1024,
  MB: 1e6,
  M: 1024 ** 2,
  MiB: 1024 ** 2,
  GB: 1e9,
  G: 1024 ** 3,
  GiB: 1024 ** 3,
  TB: 1e12,
  T: 1024 ** 4,
  TiB: 1024 ** 4,
};

/** The most CPUs or nodes that a list of them may name. */
const MAX_ID = 65_535;
const MAX_IDS_TEXT = 4096;

/** @throws XmlError */
export function readDomain(xml: string): DomainShape {
  const domain = parseDocument(xml, 'domain');
  const devices = domain.child('devices');
  const type = domain.at('os', 'type');
  const emulator = devices?.child('emulator')?.text;
  return {
    name: required(domain.child('name')?.text, '<name>'),
    uuid: required(domain.child('uuid')?.text, '<uuid>').toLowerCase(),
    virtType: required(domain.attribute('type'), "the domain's type"),
    architecture: required(type?.attribute('arch'), "the architecture in <os>'s <type>"),
    machine: type?.attribute('machine') ?? '',
    ...(emulator ? { emulator } : {}),
    vcpus: whole(domain.child('vcpu')?.text ?? '1', '<vcpu>'),
    cpu: readCpu(domain.child('cpu')),
    memoryBytes: sizeOf(domain.child('memory'), '<memory>'),
    memoryLocked: domain.at('memoryBacking', 'locked') !== undefined,
    ...readMemoryBacking(domain),
    ...readPinning(domain),
    disks: devices?.all('disk').map(readDisk) ?? [],
    interfaces: devices?.all('interface').map(readInterface) ?? [],
    graphics: readGraphics(devices),
    bound: [...boundDevices(domain, devices)],
    files: [...requiredFiles(domain, devices)],
    ...nvramOf(domain),
    secrets: [...neededSecrets(devices)],
    kinds: [...deviceKinds(devices)],
    ownArguments: domain.children.some(
      ({ namespace, name }) => namespace === QEMU_NAMESPACE && !name.endsWith(':capabilities'),
    ),
  };
}

function readCpu(cpu: XmlElement | undefined): DomainShape['cpu'] {
  if (cpu === undefined) return { mode: '', model: '', check: '', xml: '' };
  const mode = cpu.attribute('mode') ?? 'custom';
  return {
    mode,
    model: mode === 'custom' ? (cpu.child('model')?.text ?? '') : '',
    check: cpu.attribute('check') ?? '',
    xml: toXml(comparable(cpu)),
  };
}

/** Topology, caches and NUMA cells are the guest's own affair. */
function comparable(cpu: XmlElement): XmlElement {
  const attributes = new Map([...cpu.attributes].filter(([name]) => name === 'mode' || name === 'match'));
  const children = cpu.children.filter(({ name }) => ['model', 'vendor', 'feature'].includes(name));
  return new XmlElement({ name: 'cpu', namespace: '', attributes, children, text: '' });
}

/** Of a `<cpu>` that came from elsewhere: again only what CPUs are compared by. */
export function comparableCpu(xml: string): string {
  return toXml(comparable(parseDocument(xml, 'cpu')));
}

function readMemoryBacking(domain: XmlElement): Pick<DomainShape, 'hugePages' | 'memoryInFiles'> {
  const backing = domain.child('memoryBacking');
  const huge = backing?.child('hugepages');
  if (huge === undefined) {
    const files = backing?.child('source')?.attribute('type') === 'file';
    return { hugePages: [], memoryInFiles: files };
  }
  const total = sizeOf(domain.child('memory'), '<memory>');
  const cells = domain.at('cpu', 'numa')?.all('cell') ?? [];
  const bytesOf = new Map(
    cells.map((cell, index) => [
      whole(cell.attribute('id') ?? String(index), "a NUMA cell's id"),
      sized(cell.attribute('memory'), cell.attribute('unit'), "a NUMA cell's memory"),
    ]),
  );
  const pages = huge.all('page').map((page) => ({
    pageBytes: sized(page.attribute('size'), page.attribute('unit'), "a huge page's size"),
    nodes: idsOf(page.attribute('nodeset')),
  }));
  if (pages.length === 0) return { hugePages: [{ pageBytes: 0, bytes: total }], memoryInFiles: false };
  const ofNodes = pages
    .filter(({ nodes }) => nodes.length > 0)
    .map(({ pageBytes, nodes }) => ({
      pageBytes,
      bytes: nodes.reduce((sum, node) => sum + (bytesOf.get(node) ?? 0), 0),
    }));
  const rest = total - ofNodes.reduce((sum, { bytes }) => sum + bytes, 0);
  const ofRest = pages
    .filter(({ nodes }) => nodes.length === 0)
    .map(({ pageBytes }) => ({ pageBytes, bytes: Math.max(0, rest) }));
  return { hugePages: [...ofNodes, ...ofRest], memoryInFiles: false };
}

function readPinning(domain: XmlElement): Pick<DomainShape, 'pinnedCpus' | 'pinnedNodes'> {
  const tune = domain.child('cputune');
  const pins = ['vcpupin', 'emulatorpin', 'iothreadpin'].flatMap((name) => tune?.all(name) ?? []);
  const cpus = [domain.child('vcpu'), ...pins].flatMap((element) => idsOf(element?.attribute('cpuset')));
  const numa = domain.child('numatune');
  const nodes = [...(numa?.all('memory') ?? []), ...(numa?.all('memnode') ?? [])]
    .filter((element) => element.attribute('mode') !== 'preferred')
    .flatMap((element) => idsOf(element.attribute('nodeset')));
  return { pinnedCpus: ordered(cpus), pinnedNodes: ordered(nodes) };
}

function readDisk(disk: XmlElement): Disk {
  const device = disk.attribute('device') ?? 'disk';
  if (!isDiskDevice(device)) throw new XmlError(`a disk's device is "${device.slice(0, 64)}"`);
  const driver = disk.child('driver');
  const type = disk.attribute('type') ?? 'file';
  const backing = [...backingChain(disk)];
  return {
    target: required(disk.child('target')?.attribute('dev'), "a disk's target"),
    device,
    source: sourceOf(type, disk.child('source')),
    format: driver?.attribute('type') ?? '',
    cache: defaultless(driver?.attribute('cache')),
    readonly: disk.child('readonly') !== undefined || device === 'cdrom',
    shareable: disk.child('shareable') !== undefined,
    optional: ['optional', 'requisite'].includes(disk.child('source')?.attribute('startupPolicy') ?? ''),
    transient: disk.child('transient') !== undefined,
    encryption: encryptionOf(disk)?.attribute('format') ?? '',
    backing,
    backingNamed: backing.length > 0,
  };
}

const isDiskDevice = (device: string): device is Disk['device'] =>
  ['disk', 'cdrom', 'floppy', 'lun'].includes(device);

const defaultless = (value: string | undefined): string => (value === 'default' ? '' : (value ?? ''));

function sourceOf(type: string, source: XmlElement | undefined): Disk['source'] {
  const attribute = (name: string) => source?.attribute(name) ?? '';
  switch (type) {
    case 'file':
      return attribute('file') === '' ? { type: 'none' } : { type, path: attribute('file') };
    case 'block':
      return attribute('dev') === '' ? { type: 'none' } : { type, path: attribute('dev') };
    case 'volume': {
      const [pool, volume] = [attribute('pool'), attribute('volume')];
      return pool === '' || volume === '' ? { type: 'none' } : { type, pool, volume };
    }
    case 'network':
      return {
        type,
        protocol: required(attribute('protocol'), "a network disk's protocol"),
        name: attribute('name'),
      };
    default:
      return { type: 'other', kind: type };
  }
}

function* backingChain(disk: XmlElement): Generator<Disk['backing'][number]> {
  for (let store = disk.child('backingStore'); store !== undefined; store = store.child('backingStore')) {
    const type = store.attribute('type');
    // The end of the chain is an empty element.
    if (type === undefined) return;
    const source = sourceOf(type, store.child('source'));
    if (source.type === 'none') return;
    yield { source, format: store.child('format')?.attribute('type') ?? '' };
  }
}

/** Of a domain of which nothing else matters. @throws XmlError */
export function interfacesOf(xml: string): DomainInterface[] {
  return parseDocument(xml, 'domain').child('devices')?.all('interface').map(readInterface) ?? [];
}

function readInterface(nic: XmlElement): DomainInterface {
  const type = required(nic.attribute('type'), "an interface's type");
  const source = nic.child('source');
  const named: Readonly<Record<string, string>> = {
    network: 'network',
    bridge: 'bridge',
    direct: 'dev',
    vdpa: 'dev',
  };
  const target = nic.child('target');
  return {
    mac: nic.child('mac')?.attribute('address')?.toLowerCase() ?? '',
    type,
    source: (named[type] === undefined ? undefined : source?.attribute(named[type])) ?? '',
    tap: target?.attribute('managed') === 'no' ? (target.attribute('dev') ?? '') : '',
    transient: nic.child('teaming')?.attribute('type') === 'transient',
    filter: nic.child('filterref')?.attribute('filter') ?? '',
  };
}

function required(value: string | undefined, what: string): string {
  if (!value) throw new XmlError(`${what} is missing from the domain`);
  return value;
}

function whole(text: string, what: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new XmlError(`${what} is no number: ${text.slice(0, 64)}`);
  return value;
}

function sizeOf(element: XmlElement | undefined, what: string): number {
  return sized(element?.text, element?.attribute('unit'), what);
}

function sized(text: string | undefined, unit = 'KiB', what: string): number {
  const factor = Object.hasOwn(UNITS, unit) ? UNITS[unit] : undefined;
  if (factor === undefined)
    throw new XmlError(`${what} is in "${unit.slice(0, 64)}", which is no unit of size`);
  const size = whole(text ?? '', what) * factor;
  if (!Number.isSafeInteger(size)) throw new XmlError(`${what} is too large`);
  return size;
}

/** "0-3,^2,8" */
export function idsOf(text: string | undefined): number[] {
  if (text === undefined || text.trim() === '') return [];
  if (text.length > MAX_IDS_TEXT) throw new XmlError(`a list of numbers of ${text.length} characters`);
  const ids = new Set<number>();
  for (const piece of text.split(',')) {
    const [, not, from, to] = /^\s*(\^)?(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(piece) ?? [];
    if (from === undefined || Number(to ?? from) > MAX_ID)
      throw new XmlError(`"${text.slice(0, 64)}" is no list of numbers`);
    for (let id = Number(from); id <= Number(to ?? from); id += 1) {
      if (not === undefined) ids.add(id);
      else ids.delete(id);
    }
  }
  return ordered([...ids]);
}

function ordered(ids: readonly number[]): number[] {
  return [...new Set(ids)].sort((a, b) => a - b);
}
