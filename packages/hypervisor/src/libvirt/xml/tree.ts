/**
 * XML as a tree, read by a strict parser within bounds: what is read here may have come from another host. There are
 * no document types, and so no entities but XML's own five and characters by number; nothing is ever loaded.
 */
import { SaxesParser } from 'saxes';

/** A domain of a hundred disks has 100 KiB, 3000 elements and a depth of 8. */
const MAX_CHARACTERS = 1024 * 1024;
const MAX_ELEMENTS = 20_000;
const MAX_ATTRIBUTES = 100;
const MAX_DEPTH = 32;
/** What a message shows of what it was given. */
const SHOWN = 200;

/** The text is no XML, or none that is taken here. */
export class XmlError extends Error {
  override readonly name = 'XmlError';
  readonly code = 'E_XML';
}

export class XmlElement {
  /** With its prefix, as written. */
  readonly name: string;
  /** The URI that the prefix stands for; "" without one. */
  readonly namespace: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /** The text directly in it, without the blanks around it. */
  readonly text: string;

  constructor(fields: Omit<XmlElement, 'child' | 'all' | 'at' | 'attribute'>) {
    this.name = fields.name;
    this.namespace = fields.namespace;
    this.attributes = fields.attributes;
    this.children = fields.children;
    this.text = fields.text;
  }

  attribute(name: string): string | undefined {
    return this.attributes.get(name);
  }

  /** The first child of this name. */
  child(name: string): XmlElement | undefined {
    return this.children.find((each) => each.name === name);
  }

  all(name: string): readonly XmlElement[] {
    return this.children.filter((each) => each.name === name);
  }

  /** Along first children: `at('os', 'type')`. */
  at(...names: readonly string[]): XmlElement | undefined {
    return names.reduce<XmlElement | undefined>((element, name) => element?.child(name), this);
  }
}

interface Open {
  readonly name: string;
  readonly namespace: string;
  readonly attributes: Map<string, string>;
  readonly children: XmlElement[];
  text: string;
}

/** @throws XmlError */
export function parseXml(text: string): XmlElement {
  if (text.length > MAX_CHARACTERS) refuse(`${text.length} characters are more than ${MAX_CHARACTERS}`);
  const parser = new SaxesParser({ xmlns: true, position: true });
  const open: Open[] = [];
  let root: XmlElement | undefined;
  let elements = 0;
  parser.on('error', (error) => refuse(error.message.slice(0, SHOWN)));
  parser.on('doctype', () => refuse('a document type is not taken'));
  parser.on('opentag', ({ name, uri, attributes }) => {
    elements += 1;
    if (elements > MAX_ELEMENTS) refuse(`more than ${MAX_ELEMENTS} elements`);
    if (open.length >= MAX_DEPTH) refuse(`elements nested deeper than ${MAX_DEPTH}`);
    const values = Object.entries(attributes).map(([key, { value }]) => [key, value] as const);
    if (values.length > MAX_ATTRIBUTES) refuse(`an element with more than ${MAX_ATTRIBUTES} attributes`);
    open.push({ name, namespace: uri, attributes: new Map(values), children: [], text: '' });
  });
  const onText = (piece: string) => {
    const last = open.at(-1);
    if (last !== undefined) last.text += piece;
  };
  parser.on('text', onText);
  parser.on('cdata', onText);
  parser.on('closetag', () => {
    const closed = open.pop();
    // The parser has told before that nothing was open.
    if (closed === undefined) return;
    const element = new XmlElement({ ...closed, text: closed.text.trim() });
    const parent = open.at(-1);
    if (parent === undefined) root = element;
    else parent.children.push(element);
  });
  parser.write(text).close();
  return root ?? refuse('there is no element');
}

/** Reads a document whose root must be of this name. */
export function parseDocument(text: string, name: string): XmlElement {
  const root = parseXml(text);
  if (root.name !== name) refuse(`it is a <${root.name.slice(0, SHOWN)}>, not a <${name}>`);
  return root;
}

/** The element as text, on one line. */
export function toXml({
  name,
  attributes,
  children,
  text,
}: Omit<XmlElement, 'child' | 'all' | 'at' | 'attribute'>): string {
  const head = [...attributes].map(([key, value]) => ` ${key}="${escaped(value)}"`).join('');
  const content = children.map(toXml).join('') + escaped(text);
  return content === '' ? `<${name}${head}/>` : `<${name}${head}>${content}</${name}>`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  '\n': '&#10;',
  '\r': '&#13;',
  '\t': '&#9;',
};

function escaped(text: string): string {
  return text.replace(/[&<>"\n\r\t]/g, (character) => ESCAPES[character] ?? character);
}

function refuse(why: string): never {
  throw new XmlError(`not an XML text that is taken here: ${why}`);
}
