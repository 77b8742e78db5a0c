/** The few things that the drivers read from a domain's XML, as libvirt itself writes it. */
import type { Nic } from '@vmferry/engine/guest';
import { parseDocument } from './xml/tree.ts';

/** "pc-i440fx-7.2" */
export function machineOf(xml: string): string {
  return parseDocument(xml, 'domain').at('os', 'type')?.attribute('machine') ?? '';
}

/** The domain's interfaces; `hostInterface` is the tap, where the domain runs and has one. */
export function readInterfaces(xml: string): Nic[] {
  const devices = parseDocument(xml, 'domain').child('devices');
  return (devices?.all('interface') ?? []).flatMap((nic) => {
    const mac = nic.child('mac')?.attribute('address')?.toLowerCase();
    if (mac === undefined) return [];
    const tap = nic.child('target')?.attribute('dev');
    const alias = nic.child('alias')?.attribute('name');
    const place = tap === undefined ? {} : { hostInterface: tap };
    return [{ mac, name: alias ?? tap ?? mac, addresses: [], ...place }];
  });
}

/** The domain's own name and UUID, which stand before all that has names of its own. */
export function identityOf(xml: string): { readonly name: string; readonly uuid: string } {
  const head = xml.slice(0, xml.search(/<(devices|os|metadata|cpu)\b/) >>> 0);
  return {
    name: unescaped(/<name>([^<]*)<\/name>/.exec(head)?.[1] ?? ''),
    uuid: /<uuid>([^<]*)<\/uuid>/.exec(head)?.[1] ?? '',
  };
}

function unescaped(text: string): string {
  const characters: Readonly<Record<string, string>> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name: string) => characters[name] ?? '');
}
