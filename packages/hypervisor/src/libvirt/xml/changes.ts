/**
 * Compares a domain's XML with what an operator wants of it at the destination, and allows only the kinds of changes
 * that the destination's configuration names. Everything else is a difference that is refused, with its place.
 */
import type { XmlChange } from '@vmferry/engine/xml-changes';
import { type Finding, refusal } from '../preflight/finding.ts';
import { parseDocument, type XmlElement, XmlError } from './tree.ts';

/** `before` and `after` are undefined where it is not there. */
export interface XmlDifference {
  /** "/domain/devices/disk[vda]/source/@file" */
  readonly path: string;
  /** The same without what tells it from its likes: "/domain/devices/disk/source/@file". */
  readonly kind: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/** Differences of which each change may consist. `*`: one name; `**`: anything below. */
const PLACES: Readonly<Record<XmlChange, readonly string[]>> = {
  metadata: ['/domain/title', '/domain/description', '/domain/metadata', '/domain/metadata/**'],
  'disk-source': ['@file', '@dev', '@pool', '@volume', '@name', '@dir'].map(
    (attribute) => `/domain/devices/disk/source/${attribute}`,
  ),
  'interface-source': ['@network', '@bridge', '@dev', '@portgroup', '@portid'].map(
    (attribute) => `/domain/devices/interface/source/${attribute}`,
  ),
  'graphics-listen': [
    '/domain/devices/graphics/@listen',
    '/domain/devices/graphics/@port',
    '/domain/devices/graphics/@autoport',
    '/domain/devices/graphics/@tlsPort',
    '/domain/devices/graphics/@websocket',
    '/domain/devices/graphics/listen/@address',
    '/domain/devices/graphics/listen/@network',
  ],
  pinning: [
    '/domain/vcpu/@cpuset',
    '/domain/cputune/*/@cpuset',
    '/domain/cputune/vcpupin',
    '/domain/cputune/emulatorpin',
    '/domain/cputune/iothreadpin',
    '/domain/numatune/*/@nodeset',
  ],
  emulator: ['/domain/devices/emulator'],
  'character-device-path': ['serial', 'parallel', 'console', 'channel'].map(
    (device) => `/domain/devices/${device}/source/@path`,
  ),
};

/** What a message shows of a value. */
const SHOWN = 80;
/** Differences that are told one by one. */
const MOST = 20;

/**
 * Everything that is not allowed, by its place.
 *
 * @param from what libvirt gives as migratable
 * @param to what the operator wants
 */
export function forbiddenChanges(from: string, to: string, allowed: readonly XmlChange[]): Finding[] {
  let differences: XmlDifference[];
  try {
    differences = compareXml(parseDocument(from, 'domain'), parseDocument(to, 'domain'));
  } catch (error) {
    if (!(error instanceof XmlError)) throw error;
    const remedy = 'Start from virsh dumpxml --migratable and change what differs.';
    return [refusal('E_DEST_XML', `what is given with --dest-xml cannot be used: ${error.message}`, remedy)];
  }
  const forbidden = differences.filter((difference) => !allowed.some((change) => isOf(change, difference)));
  const told = forbidden.slice(0, MOST).map((difference) => finding(difference));
  const rest = forbidden.length - told.length;
  return rest <= 0
    ? told
    : [...told, refusal('E_DEST_XML', `--dest-xml changes ${rest} more places`, REMEDY)];
}

const REMEDY =
  "Leave it as it is (virsh dumpxml --migratable), or allow the change in libvirt.allowXmlChanges of the destination agent's configuration.";

function finding(difference: XmlDifference): Finding {
  const { path, before, after } = difference;
  const what =
    before === undefined
      ? `adds ${path}${shown(after)}`
      : after === undefined
        ? `leaves ${path}${shown(before)} out`
        : `changes ${path} from${shown(before)} to${shown(after)}`;
  if (difference.kind === '/domain/name') return renamed(difference);
  const known = Object.keys(PLACES).find((change) => isOf(change as XmlChange, difference));
  const allow =
    known === undefined ? 'no configuration allows that' : `the destination does not allow "${known}"`;
  return refusal('E_DEST_XML', `--dest-xml ${what}: ${allow}`, known === undefined ? LEAVE : REMEDY);
}

/** libvirt refuses it: it takes another name as a parameter of its own. */
function renamed({ before, after }: XmlDifference): Finding {
  const there = after === undefined || after === '' ? 'NAME' : after;
  return refusal(
    'E_DEST_XML',
    `--dest-xml changes the domain's name from${shown(before)} to${shown(after)}`,
    `Leave the name in the XML as it is, and give the domain another one there with --dest-guest libvirt:${there}.`,
  );
}

const LEAVE = 'Leave it as it is: virsh dumpxml --migratable.';

function shown(value: string | undefined): string {
  if (value === undefined || value === '') return '';
  return ` "${value.length > SHOWN ? `${value.slice(0, SHOWN)}…` : value}"`;
}

function isOf(change: XmlChange, { kind }: XmlDifference): boolean {
  return PLACES[change].some((place) => matches(kind, place));
}

function matches(kind: string, place: string): boolean {
  if (place.endsWith('/**')) return kind.startsWith(place.slice(0, -2));
  const [names, wanted] = [kind.split('/'), place.split('/')];
  return (
    names.length === wanted.length && wanted.every((name, index) => name === '*' || name === names[index])
  );
}

/** Attributes have no order, elements of one name have; of different names they have none. */
export function compareXml(from: XmlElement, to: XmlElement): XmlDifference[] {
  return [...compareElements(from, to, { path: `/${from.name}`, kind: `/${from.name}` })];
}

interface Place {
  readonly path: string;
  readonly kind: string;
}

function* compareElements(from: XmlElement, to: XmlElement, at: Place): Generator<XmlDifference> {
  if (from.namespace !== to.namespace)
    yield { ...below(at, 'xmlns()'), before: from.namespace, after: to.namespace };
  if (from.text !== to.text) yield { ...at, before: from.text, after: to.text };
  for (const name of new Set([...from.attributes.keys(), ...to.attributes.keys()])) {
    const [before, after] = [from.attribute(name), to.attribute(name)];
    if (before !== after) yield { ...below(at, `@${name}`), before, after };
  }
  for (const name of new Set([...from.children, ...to.children].map((child) => child.name))) {
    yield* compareChildren(keyed(from.all(name)), keyed(to.all(name)), below(at, name));
  }
}

/** One that comes or goes does so whole: its kind stands for all that is in it. */
function* compareChildren(
  from: ReadonlyMap<string, XmlElement>,
  to: ReadonlyMap<string, XmlElement>,
  at: Place,
): Generator<XmlDifference> {
  for (const key of new Set([...from.keys(), ...to.keys()])) {
    const [before, after] = [from.get(key), to.get(key)];
    const place = { path: key === '' ? at.path : `${at.path}[${key}]`, kind: at.kind };
    if (before !== undefined && after !== undefined) yield* compareElements(before, after, place);
    else yield { ...place, before: before?.text, after: after?.text };
  }
}

function below({ path, kind }: Place, name: string): Place {
  return { path: `${path}/${name}`, kind: `${kind}/${name}` };
}

/** By what tells elements of one name apart (a disk's target, an interface's MAC), else by their order. */
function keyed(elements: readonly XmlElement[]): ReadonlyMap<string, XmlElement> {
  const found = new Map<string, XmlElement>();
  for (const [index, element] of elements.entries()) {
    const own = keyOf(element);
    const numbered = elements.length === 1 ? '' : String(index + 1);
    const key = own === undefined || found.has(own) ? numbered : own;
    // Two of the same key, of which the second is numbered, do not take each other's place.
    found.set(found.has(key) ? `${key}#${index + 1}` : key, element);
  }
  return found;
}

function keyOf(element: XmlElement): string | undefined {
  switch (element.name) {
    case 'disk':
      return element.child('target')?.attribute('dev');
    case 'interface':
      return element.child('mac')?.attribute('address')?.toLowerCase();
    case 'vcpupin':
      return element.attribute('vcpu');
    case 'feature':
      return element.attribute('name');
    default:
      return undefined;
  }
}
