/** The few things that the drivers read from a domain's XML, as libvirt itself writes it. */
import type { Nic } from '@vmferry/engine/guest';

/** "pc-i440fx-7.2" */
export function machineOf(xml: string): string {
  return /<type\b[^>]*\bmachine=['"]([^'"]+)['"]/.exec(xml)?.[1] ?? '';
}

/** The domain's interfaces; `hostInterface` is the tap, where the domain runs and has one. */
export function readInterfaces(xml: string): Nic[] {
  const found: Nic[] = [];
  for (const [, body = ''] of xml.matchAll(/<interface\b[^>]*>([\s\S]*?)<\/interface>/g)) {
    const mac = /<mac\b[^>]*\baddress=['"]([^'"]+)['"]/.exec(body)?.[1]?.toLowerCase();
    if (mac === undefined) continue;
    const tap = /<target\b[^>]*\bdev=['"]([^'"]+)['"]/.exec(body)?.[1];
    const alias = /<alias\b[^>]*\bname=['"]([^'"]+)['"]/.exec(body)?.[1];
    found.push({
      mac,
      name: alias ?? tap ?? mac,
      addresses: [],
      ...(tap === undefined ? {} : { hostInterface: tap }),
    });
  }
  return found;
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
