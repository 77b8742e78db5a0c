import { parseXml, toXml, XmlElement, XmlError } from '@vmferry/hypervisor/libvirt/xml/tree';
import fc from 'fast-check';
import { expect, test } from 'vitest';

const element = (name: string, fields: Partial<XmlElement> = {}) =>
  new XmlElement({ name, namespace: '', attributes: new Map(), children: [], text: '', ...fields });

test('elements, attributes and text are found by name', () => {
  const root = parseXml(`<?xml version="1.0"?><!-- a -->
    <domain type='kvm'><os><type arch="x86_64">hvm</type><boot dev='hd'/><boot dev='cdrom'/></os><name> a &amp; b </name></domain>`);
  expect(root.attribute('type')).toBe('kvm');
  expect(root.at('os', 'type')?.text).toBe('hvm');
  expect(
    root
      .child('os')
      ?.all('boot')
      .map((each) => each.attribute('dev')),
  ).toEqual(['hd', 'cdrom']);
  expect(root.child('name')?.text).toBe('a & b');
  expect(root.at('os', 'loader', 'nothing')).toBeUndefined();
});

test('a prefix is known by what it stands for', () => {
  const root = parseXml(`<d xmlns:q='http://a/1'><q:arg/><arg/></d>`);
  expect(root.children.map(({ name, namespace }) => [name, namespace])).toEqual([
    ['q:arg', 'http://a/1'],
    ['arg', ''],
  ]);
});

test.each([
  ['an entity of its own', `<!DOCTYPE d [<!ENTITY a "b">]><d>&a;</d>`],
  ['an entity that nobody declared', '<d>&a;</d>'],
  ['a file that an entity names', `<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><d>&a;</d>`],
  [
    'entities that grow into gigabytes',
    `<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><d>&b;</d>`,
  ],
  ['a document type without entities', '<!DOCTYPE domain><domain/>'],
  ['nothing', ''],
  ['two roots', '<a/><b/>'],
  ['an element that does not end', '<a><b></a>'],
  ['an element that is not begun', '<a/></a>'],
  ['an attribute twice', `<a b='1' b='2'/>`],
  ['a prefix that stands for nothing', '<a:b/>'],
  ['a zero byte', '<a>\0</a>'],
  ['too deep an element', '<a>'.repeat(33) + '</a>'.repeat(33)],
  ['too many elements', `<a>${'<b/>'.repeat(20_000)}</a>`],
  ['too many attributes', `<a ${Array.from({ length: 101 }, (_, n) => `b${n}=''`).join(' ')}/>`],
  ['too long a text', `<a>${' '.repeat(1024 * 1024)}</a>`],
])('%s is refused', (_, text) => {
  expect(() => parseXml(text)).toThrow(XmlError);
});

test('whatever is thrown at it, it ends with an element or an XmlError', () => {
  const piece = fc.constantFrom(
    '<',
    '>',
    '/',
    'a',
    '"',
    "'",
    '=',
    '&',
    ';',
    '!',
    '[',
    ']',
    '-',
    '?',
    ' ',
    'xmlns:',
    '#x41',
    'CDATA',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      try {
        parseXml(pieces.join(''));
      } catch (error) {
        expect(error).toBeInstanceOf(XmlError);
      }
    }),
    { numRuns: 2000 },
  );
});

test('what is written is read again', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
  const value = fc.string({
    unit: fc.constantFrom('a', ' ', '<', '>', '&', '"', "'", '\n', '\t', 'é', '😀'),
    maxLength: 10,
  });
  const fields = {
    name,
    attributes: fc.dictionary(name, value, { maxKeys: 4 }),
    text: value.map((text) => text.trim()),
  };
  const built = ({
    attributes,
    ...rest
  }: {
    name: string;
    attributes: Record<string, string>;
    text: string;
    children: readonly XmlElement[];
  }) => element(rest.name, { ...rest, attributes: new Map(Object.entries(attributes)) });
  const { tree } = fc.letrec<{ tree: XmlElement }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      fc.record({ ...fields, children: fc.constant([]) }).map(built),
      fc.record({ ...fields, children: fc.array(tie('tree'), { maxLength: 3 }) }).map(built),
    ),
  }));
  fc.assert(
    fc.property(tree, (written) => {
      expect(parseXml(toXml(written))).toEqual(written);
    }),
    { numRuns: 300 },
  );
});
