/** What a domain needs of the host that it runs on, and what of it is bound to one host. Source: libvirt's `formatdomain` page. */
import type { DomainShape, NeededSecret } from './domain-shape.ts';
import type { XmlElement } from './tree.ts';

/** What libvirt or QEMU cannot take along. */
export function* boundDevices(
  domain: XmlElement,
  devices: XmlElement | undefined,
): Generator<DomainShape['bound'][number]> {
  for (const device of devices?.all('hostdev') ?? []) {
    const type = device.attribute('type') ?? device.attribute('mode') ?? '';
    if (device.child('teaming')?.attribute('type') === 'transient') continue;
    yield { what: type === 'mdev' ? 'mediated device' : `host device (${type})`, which: whichDevice(device) };
  }
  for (const nic of devices?.all('interface') ?? []) {
    const type = nic.attribute('type') ?? '';
    if (nic.child('teaming')?.attribute('type') === 'transient') continue;
    if (type === 'hostdev') yield { what: 'network card of the host', which: whichDevice(nic) };
    if (type === 'vdpa') yield { what: 'vDPA interface', which: nic.child('source')?.attribute('dev') ?? '' };
  }
  for (const folder of devices?.all('filesystem') ?? []) {
    const tag = folder.child('target')?.attribute('dir') ?? '';
    const source =
      folder.child('source')?.attribute('dir') ?? folder.child('source')?.attribute('socket') ?? '';
    yield { what: 'shared folder', which: `${tag}${source === '' ? '' : ` (${source})`}` };
  }
  for (const tpm of devices?.all('tpm') ?? []) {
    if (tpm.child('backend')?.attribute('type') !== 'passthrough') continue;
    yield { what: 'TPM of the host', which: tpm.at('backend', 'device')?.attribute('path') ?? '' };
  }
  for (const input of devices?.all('input') ?? []) {
    if (!['passthrough', 'evdev'].includes(input.attribute('type') ?? '')) continue;
    const source = input.child('source');
    yield {
      what: 'input device of the host',
      which: source?.attribute('evdev') ?? source?.attribute('dev') ?? '',
    };
  }
  for (const card of devices?.all('smartcard') ?? []) {
    if (card.attribute('mode') === 'host') yield { what: 'smart card reader of the host', which: '' };
  }
  for (const memory of devices?.all('shmem') ?? []) {
    if (memory.attribute('role') === 'master') continue;
    yield { what: 'shared memory', which: memory.attribute('name') ?? '' };
  }
  for (const memory of devices?.all('memory') ?? []) {
    if (memory.attribute('model') === 'sgx-epc') yield { what: 'SGX memory', which: '' };
  }
  const security = domain.child('launchSecurity')?.attribute('type');
  if (security !== undefined) yield { what: 'memory that this host encrypts', which: security };
}

/** "0000:01:00.0", "046d:c52b", a mediated device's UUID. */
function whichDevice(device: XmlElement): string {
  const source = device.child('source');
  const address = source?.child('address');
  const part = (name: string) => address?.attribute(name)?.replace(/^0x/, '') ?? '';
  if (part('uuid') !== '') return part('uuid');
  if (part('slot') !== '')
    return `${part('domain') || '0000'}:${part('bus')}:${part('slot')}.${part('function')}`;
  const id = (name: string) => source?.child(name)?.attribute('id')?.replace(/^0x/, '');
  if (id('vendor') !== undefined) return `${id('vendor')}:${id('product') ?? ''}`;
  return (
    source?.child('adapter')?.attribute('name') ?? source?.attribute('wwpn') ?? source?.attribute('dev') ?? ''
  );
}

export function* requiredFiles(
  domain: XmlElement,
  devices: XmlElement | undefined,
): Generator<DomainShape['files'][number]> {
  const os = domain.child('os');
  for (const [what, name] of [
    ['firmware', 'loader'],
    ['kernel', 'kernel'],
    ['initial RAM disk', 'initrd'],
    ['device tree', 'dtb'],
  ] as const) {
    const path = os?.child(name)?.text;
    // Some firmware is named by its file's name alone.
    if (path?.startsWith('/') === true) yield { what, path };
  }
  for (const rng of devices?.all('rng') ?? []) {
    const backend = rng.child('backend');
    if (backend?.attribute('model') === 'random' && backend.text.startsWith('/')) {
      yield { what: 'source of random numbers', path: backend.text };
    }
  }
  yield* behindCharacterDevices(devices);
  for (const nic of devices?.all('interface') ?? []) {
    const source = nic.child('source');
    const path = source?.attribute('path');
    // As a client QEMU connects when it starts.
    if (nic.attribute('type') !== 'vhostuser' || source?.attribute('mode') !== 'client') continue;
    if (path?.startsWith('/') === true) yield { what: 'vhost-user socket', path };
  }
  for (const memory of devices?.all('memory') ?? []) {
    const path = memory.at('source', 'path')?.text;
    if (path?.startsWith('/') === true) yield { what: 'persistent memory', path };
  }
}

/** Of a file: libvirt makes no other. */
export function nvramOf(domain: XmlElement): Pick<DomainShape, 'nvram'> {
  const nvram = domain.at('os', 'nvram');
  const path = nvram?.child('source')?.attribute('file') ?? nvram?.text ?? '';
  if (!path.startsWith('/')) return {};
  const template = nvram?.attribute('template') ?? '';
  return { nvram: { path, ...(template.startsWith('/') ? { template } : {}) } };
}

/** Of a serial port libvirt makes a console as well, which is the same device. */
function* behindCharacterDevices(devices: XmlElement | undefined): Generator<DomainShape['files'][number]> {
  const told = new Set<string>();
  for (const name of ['serial', 'parallel', 'console', 'channel'] as const) {
    for (const device of devices?.all(name) ?? []) {
      const [source, type] = [device.child('source'), device.attribute('type')];
      const path = source?.attribute('path');
      const connects = source?.attribute('mode') === 'connect';
      const triesAgain = source?.child('reconnect')?.attribute('enabled') === 'yes';
      const needed = type === 'dev' || (type === 'unix' && connects && !triesAgain);
      if (!needed || path?.startsWith('/') !== true || told.has(path)) continue;
      told.add(path);
      yield { what: `${type === 'dev' ? 'device' : 'socket'} behind a ${name}`, path };
    }
  }
}

/** In the words of domain capabilities, where they have any. */
export function* deviceKinds(devices: XmlElement | undefined): Generator<DomainShape['kinds'][number]> {
  const seen = new Set<string>();
  function* once(device: string, aspect: string, value: string | undefined) {
    const key = `${device}/${aspect}/${value ?? ''}`;
    if (!value || seen.has(key)) return;
    seen.add(key);
    yield { device, aspect, value };
  }
  for (const disk of devices?.all('disk') ?? [])
    yield* once('disk', 'bus', disk.child('target')?.attribute('bus'));
  for (const each of devices?.all('graphics') ?? []) yield* once('graphics', 'type', each.attribute('type'));
  for (const video of devices?.all('video') ?? []) {
    yield* once('video', 'modelType', video.child('model')?.attribute('type'));
  }
  for (const tpm of devices?.all('tpm') ?? []) {
    yield* once('tpm', 'model', tpm.attribute('model'));
    yield* once('tpm', 'backendModel', tpm.child('backend')?.attribute('type'));
  }
  for (const rng of devices?.all('rng') ?? []) {
    yield* once('rng', 'backendModel', rng.child('backend')?.attribute('model'));
  }
}

/** Where it has always been, or where it was before. */
export const encryptionOf = (disk: XmlElement): XmlElement | undefined =>
  disk.at('source', 'encryption') ?? disk.child('encryption');

/** Of disks that QEMU decrypts or logs in for, and of a TPM's state. */
export function* neededSecrets(devices: XmlElement | undefined): Generator<NeededSecret> {
  for (const disk of devices?.all('disk') ?? []) {
    const what = `disk ${disk.child('target')?.attribute('dev') ?? ''}`;
    for (const holder of [encryptionOf(disk), disk.at('source', 'auth') ?? disk.child('auth')]) {
      for (const secret of holder?.all('secret') ?? []) yield secretOf(what, secret);
    }
  }
  for (const tpm of devices?.all('tpm') ?? []) {
    const encryption = tpm.at('backend', 'encryption');
    const uuid = encryption?.attribute('secret');
    if (uuid !== undefined) yield { what: 'the TPM', uuid };
  }
}

function secretOf(what: string, secret: XmlElement): NeededSecret {
  const [uuid, usage] = [secret.attribute('uuid'), secret.attribute('usage')];
  return {
    what,
    ...(uuid === undefined ? {} : { uuid: uuid.toLowerCase() }),
    ...(usage === undefined ? {} : { usage }),
  };
}
