import { type XmlChange, xmlChanges } from '@vmferry/engine/xml-changes';
import { compareXml, forbiddenChanges } from '@vmferry/hypervisor/libvirt/xml/changes';
import { parseXml } from '@vmferry/hypervisor/libvirt/xml/tree';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { domainXml } from '../support/domain.ts';

const DISKS = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/img/a'/><target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='disk'><source file='/img/b'/><target dev='vdb' bus='virtio'/></disk>`;
const OTHERS = `<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>
  <graphics type='vnc' port='-1' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>
  <serial type='file'><source path='/var/log/a'/><target port='0'/></serial>`;
const XML = domainXml({
  attributes: `xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'`,
  devices: `${DISKS}${OTHERS}`,
  more: `<metadata><m:x xmlns:m='http://m/1'>old</m:x></metadata><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>`,
});

const changed = (from: string | RegExp, to: string): string => {
  const text = XML.replace(from, to);
  expect(text).not.toBe(XML);
  return text;
};

/** One that each kind of change allows. */
const examples: Record<XmlChange, readonly (readonly [from: string, to: string, place: string])[]> = {
  metadata: [
    ['>old<', '>new<', '/domain/metadata/m:x'],
    [`<m:x xmlns:m='http://m/1'>old</m:x>`, '', '/domain/metadata/m:x'],
    ['<metadata>', '<description>a</description><metadata>', '/domain/description'],
  ],
  'disk-source': [[`file='/img/b'`, `file='/srv/b'`, '/domain/devices/disk[vdb]/source/@file']],
  'interface-source': [
    [`bridge='br0'`, `bridge='br1'`, '/domain/devices/interface[52:54:00:00:00:01]/source/@bridge'],
  ],
  'graphics-listen': [
    [`listen='10.0.0.1'`, `listen='10.0.0.2'`, '/domain/devices/graphics/@listen'],
    [
      `<listen type='address' address='10.0.0.1'`,
      `<listen type='address' address='::'`,
      '/domain/devices/graphics/listen/@address',
    ],
  ],
  pinning: [
    [`cpuset='1'`, `cpuset='2-3'`, '/domain/cputune/vcpupin[0]/@cpuset'],
    [`<vcpupin vcpu='0' cpuset='1'/>`, '', '/domain/cputune/vcpupin[0]'],
  ],
  emulator: [['qemu-system-x86_64</emulator>', 'kvm</emulator>', '/domain/devices/emulator']],
  'character-device-path': [
    [`path='/var/log/a'`, `path='/var/log/b'`, '/domain/devices/serial/source/@path'],
  ],
};

test.each(xmlChanges)(
  'a change of the kind "%s" goes through where it is allowed, and only there',
  (change) => {
    for (const [from, to, place] of examples[change]) {
      const wanted = changed(from, to);
      expect(forbiddenChanges(XML, wanted, [change])).toEqual([]);
      const [finding, ...more] = forbiddenChanges(
        XML,
        wanted,
        xmlChanges.filter((each) => each !== change),
      );
      expect(more).toEqual([]);
      expect(finding).toMatchObject({ severity: 'refusal', code: 'E_DEST_XML' });
      expect(finding?.message).toContain(` ${place}`);
      expect(finding?.message).toContain(`"${change}"`);
    }
  },
);

test('another name is refused whatever is allowed, for libvirt takes none by XML', () => {
  expect(forbiddenChanges(XML, changed('<name>web</name>', '<name>web2</name>'), xmlChanges)).toEqual([
    {
      severity: 'refusal',
      code: 'E_DEST_XML',
      message: `--dest-xml changes the domain's name from "web" to "web2"`,
      remedy: expect.stringContaining('--dest-guest libvirt:web2'),
    },
  ]);
});

test('what is the same in other words is the same', () => {
  const spaced = XML.replaceAll('><', '> <!-- a --> <').replaceAll(`'`, '"');
  expect(forbiddenChanges(XML, spaced, [])).toEqual([]);
  const [first, second] = DISKS.split('\n');
  expect(forbiddenChanges(XML, XML.replace(DISKS, `${second}${first}`), [])).toEqual([]);
});

test.each<[what: string, from: string | RegExp, to: string, place: string]>([
  ['the UUID', /<uuid>.*<\/uuid>/, '<uuid>11111111-2222-4000-8000-000000000009</uuid>', '/domain/uuid'],
  ['the type', `type='kvm'`, `type='qemu'`, '/domain/@type'],
  ['the memory', '1048576', '2097152', '/domain/memory'],
  ['the machine', 'pc-q35-7.2', 'pc-q35-7.1', '/domain/os/type/@machine'],
  ['the CPU', 'qemu64', 'EPYC', '/domain/cpu/model'],
  ['a disk’s format', `type='qcow2'`, `type='raw'`, '/domain/devices/disk[vda]/driver/@type'],
  ['a disk’s kind', `<disk type='file'`, `<disk type='block'`, '/domain/devices/disk[vda]/@type'],
  ['a disk’s bus', `dev='vda' bus='virtio'`, `dev='vda' bus='sata'`, '/domain/devices/disk[vda]/target/@bus'],
  [
    'a disk less',
    /<disk type='file' device='disk'><source file='\/img\/b'.*?<\/disk>/,
    '',
    '/domain/devices/disk[vdb]',
  ],
  [
    'a disk more',
    '<graphics',
    `<disk type='file'><source file='/etc/shadow'/><target dev='vdc'/></disk><graphics`,
    '/domain/devices/disk[vdc]',
  ],
  [
    'a host device',
    '<graphics',
    `<hostdev mode='subsystem' type='pci'/><graphics`,
    '/domain/devices/hostdev',
  ],
  [
    'a backing image',
    `<source file='/img/a'/>`,
    `<source file='/img/a'/><backingStore type='file'><source file='/etc/shadow'/></backingStore>`,
    '/domain/devices/disk[vda]/backingStore',
  ],
  [
    'a source’s own elements',
    `<source file='/img/a'/>`,
    `<source file='/img/a'><seclabel model='dac' relabel='no'/></source>`,
    '/domain/devices/disk[vda]/source/seclabel',
  ],
  [
    'a startup policy',
    `file='/img/a'`,
    `file='/img/a' startupPolicy='optional'`,
    '/domain/devices/disk[vda]/source/@startupPolicy',
  ],
  [
    'an interface’s script',
    `<source bridge='br0'/>`,
    `<source bridge='br0'/><script path='/tmp/x'/>`,
    '/domain/devices/interface[52:54:00:00:00:01]/script',
  ],
  [
    'arguments for QEMU',
    '<devices>',
    `<q:commandline><q:arg value='-s'/></q:commandline><devices>`,
    '/domain/q:commandline',
  ],
  [
    'a namespace',
    `xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'`,
    `xmlns:q='http://libvirt.org/schemas/domain/lxc/1.0'`,
    '/domain/@xmlns:q',
  ],
  ['a security label', '<devices>', `<seclabel type='none'/><devices>`, '/domain/seclabel'],
])('%s is refused even where everything is allowed that can be', (_, from, to, place) => {
  const findings = forbiddenChanges(XML, changed(from, to), xmlChanges);
  expect(findings.map(({ code }) => code)).toEqual(['E_DEST_XML']);
  expect(findings[0]?.message).toContain(` ${place}`);
  expect(findings[0]?.message).toMatch(/no configuration allows that/);
});

test('two disks of one target are not taken for one', () => {
  const twice = XML.replace(`dev='vdb'`, `dev='vda'`);
  expect(forbiddenChanges(XML, twice, xmlChanges).length).toBeGreaterThan(0);
  expect(forbiddenChanges(twice, twice, [])).toEqual([]);
  expect(forbiddenChanges(twice, twice.replace('/img/b', '/img/c'), []).length).toBe(1);
});

test('what is no domain is refused, and many differences are told up to a number', () => {
  expect(forbiddenChanges(XML, '<!DOCTYPE a><domain/>', xmlChanges)).toEqual([
    expect.objectContaining({ code: 'E_DEST_XML', message: expect.stringMatching(/document type/) }),
  ]);
  expect(forbiddenChanges(XML, '<network/>', xmlChanges)).toHaveLength(1);
  const many = XML.replace(
    '<devices>',
    `${Array.from({ length: 50 }, (_, n) => `<a${n}/>`).join('')}<devices>`,
  );
  const findings = forbiddenChanges(XML, many, xmlChanges);
  expect(findings).toHaveLength(21);
  expect(findings.at(-1)?.message).toMatch(/30 more places/);
});

test('one change anywhere is one difference, and nothing else hides it', () => {
  const names = fc.constantFrom('a', 'disk', 'source', 'target');
  const { tree } = fc.letrec<{ tree: string }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 3 },
      names.map((name) => `<${name} dev='1'/>`),
      fc
        .tuple(names, fc.array(tie('tree'), { maxLength: 3 }))
        .map(([name, inner]) => `<${name} dev='1'>${inner.join('')}</${name}>`),
    ),
  }));
  fc.assert(
    fc.property(tree, fc.nat(), (text, which) => {
      const root = `<domain>${text}</domain>`;
      expect(compareXml(parseXml(root), parseXml(root))).toEqual([]);
      const places = [...root.matchAll(/dev='1'/g)];
      const { index } = places[which % places.length]!;
      const other = `${root.slice(0, index)}dev='2'${root.slice(index + 7)}`;
      expect(compareXml(parseXml(root), parseXml(other)).length).toBeGreaterThan(0);
    }),
  );
});
