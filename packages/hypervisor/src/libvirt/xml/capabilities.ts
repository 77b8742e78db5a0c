/** Reads what libvirt says of a host (`formatcaps`) and of the domains that it can run (`formatdomaincaps`). */
import { parseDocument, toXml, type XmlElement } from './tree.ts';

export interface HostCapabilities {
  readonly uuid: string;
  /** `<cpu>` of the host, as libvirt compares it; "" where it does not tell. */
  readonly cpuXml: string;
  readonly nodes: readonly HostNode[];
  /** Sizes of pages that it has, in bytes. */
  readonly pageSizes: readonly number[];
  /** Whom QEMU runs as. */
  readonly qemuUser?: { readonly uid: number; readonly gid: number };
  /** Of one architecture. */
  guest(architecture: string): GuestCapabilities;
}

export interface HostNode {
  readonly id: number;
  readonly cpus: readonly number[];
}

export interface GuestCapabilities {
  readonly emulators: readonly string[];
  /** Names and what they stand for. */
  readonly machines: readonly string[];
}

export function readHostCapabilities(xml: string): HostCapabilities {
  const root = parseDocument(xml, 'capabilities');
  const host = root.child('host');
  const cpu = host?.child('cpu');
  const user = qemuUser(host);
  return {
    uuid: host?.child('uuid')?.text ?? '',
    cpuXml: cpu?.child('arch') === undefined ? '' : toXml(cpu),
    nodes: (host?.at('topology', 'cells')?.all('cell') ?? []).map((cell) => ({
      id: Number(cell.attribute('id')),
      cpus: (cell.child('cpus')?.all('cpu') ?? []).map((each) => Number(each.attribute('id'))),
    })),
    pageSizes: (cpu?.all('pages') ?? []).map((pages) => Number(pages.attribute('size')) * 1024),
    ...(user === undefined ? {} : { qemuUser: user }),
    guest: (architecture) => readGuests(root, architecture),
  };
}

function readGuests(root: XmlElement, architecture: string): GuestCapabilities {
  const found = root
    .all('guest')
    .flatMap((guest) => guest.all('arch'))
    .filter((arch) => arch.attribute('name') === architecture);
  const withKinds = found.flatMap((arch) => [arch, ...arch.all('domain')]);
  return {
    emulators: unique(withKinds.flatMap((each) => each.all('emulator')).map(({ text }) => text)),
    machines: unique(withKinds.flatMap((each) => each.all('machine')).map(({ text }) => text)),
  };
}

/** "+64055:+64055"; names, which some drivers give, are left alone. */
function qemuUser(host: XmlElement | undefined): { uid: number; gid: number } | undefined {
  const dac = host?.all('secmodel').find((model) => model.child('model')?.text === 'dac');
  const [, uid, gid] = /^\+(\d+):\+(\d+)$/.exec(dac?.child('baselabel')?.text ?? '') ?? [];
  return uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}

export interface DomainCapabilities {
  readonly maxVcpus: number;
  /** What a kind of device can be, by "disk/bus"; one that is not there is not told. */
  readonly kinds: ReadonlyMap<string, readonly string[]>;
  /** Modes and what each can be had. */
  readonly cpuModes: ReadonlySet<string>;
}

export function readDomainCapabilities(xml: string): DomainCapabilities {
  const root = parseDocument(xml, 'domainCapabilities');
  const kinds = (root.child('devices')?.children ?? []).flatMap((device) =>
    device
      .all('enum')
      .map(
        (each) =>
          [`${device.name}/${each.attribute('name')}`, each.all('value').map(({ text }) => text)] as const,
      ),
  );
  const modes = (root.child('cpu')?.all('mode') ?? []).filter(
    (mode) => mode.attribute('supported') === 'yes',
  );
  return {
    maxVcpus: Number(root.child('vcpu')?.attribute('max') ?? Number.POSITIVE_INFINITY),
    kinds: new Map(kinds),
    cpuModes: new Set(modes.map((mode) => mode.attribute('name') ?? '')),
  };
}

const unique = (texts: readonly string[]): string[] => [...new Set(texts)];
