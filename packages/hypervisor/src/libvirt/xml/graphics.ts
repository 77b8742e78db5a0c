/** Where a domain's screens are served. Source: libvirt's `formatdomain` page. */
import type { DomainGraphics } from './domain-shape.ts';
import { type XmlElement, XmlError } from './tree.ts';

const MAX_PORT = 65_535;

export function readGraphics(devices: XmlElement | undefined): DomainGraphics[] {
  return (devices?.all('graphics') ?? []).flatMap((graphics) => {
    const type = graphics.attribute('type') ?? '';
    return type === 'vnc' || type === 'spice'
      ? [{ type, listen: listenOf(graphics), ports: portsOf(graphics) }]
      : [];
  });
}

/** Of several only the first counts to QEMU. */
function listenOf(graphics: XmlElement): DomainGraphics['listen'] {
  const listen = graphics.child('listen');
  const attribute = graphics.attribute('listen') ?? '';
  switch (listen?.attribute('type') ?? 'address') {
    case 'address':
      return { type: 'address', address: listen?.attribute('address') ?? attribute };
    case 'network':
      return { type: 'network', network: listen?.attribute('network') ?? '' };
    default:
      return { type: 'none' };
  }
}

/** Those that libvirt is not to choose. */
function portsOf(graphics: XmlElement): number[] {
  const automatic = graphics.attribute('autoport') === 'yes';
  const names = automatic ? [] : ['port', 'tlsPort'];
  // A VNC server's own, whatever the port.
  return [...names, 'websocket'].flatMap((name) => {
    const text = graphics.attribute(name);
    if (text === undefined || text === '-1' || text === '0') return [];
    const port = Number(text);
    if (!/^\d+$/.test(text) || port > MAX_PORT)
      throw new XmlError(`a port of graphics is "${text.slice(0, 64)}"`);
    return [port];
  });
}
