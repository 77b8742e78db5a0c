/** The whole of a destination's preflight: its host, the images it would create, and what its configuration allows. */
import type { XmlChange } from '@vmferry/engine/xml-changes';
import type { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { confineExisting, type NamedDirectory } from '../images/confine.ts';
import { NewNvram } from '../images/nvram.ts';
import { type ImageRequest, imageRequests } from '../images/request.ts';
import { ImageStore } from '../images/store.ts';
import { NewVolumes, type VolumeName } from '../images/volumes.ts';
import { forbiddenChanges } from '../xml/changes.ts';
import type { DomainShape } from '../xml/domain-shape.ts';
import { isCopied } from './copied-disks.ts';
import { type DomainFacts, joinXml } from './domain-facts.ts';
import { type Finding, refusal } from './finding.ts';
import { gatherHost, type HostPolicy } from './gather-host.ts';
import type { HostFacts } from './host-facts.ts';
import { HostView } from './host-view.ts';
import { destFindings, refusalsFirst } from './preflight.ts';

/** What the destination's configuration says of domains that come in. */
export interface DestPolicy extends HostPolicy {
  /** Disk images may be created in these and below. None: none may. */
  readonly imageDirectories: readonly NamedDirectory[];
  /** Backing images may lie in these as well. */
  readonly baseImageDirectories: readonly NamedDirectory[];
  /** Disks and media that are there already must lie in these, or in those above. Undefined: anywhere. */
  readonly diskDirectories?: readonly NamedDirectory[] | undefined;
  readonly allowXmlChanges: readonly XmlChange[];
  /** Where the host's own `/` is for the agent. */
  readonly hostRoot?: string | undefined;
}

export interface DestPreflight {
  /** Refusals first. */
  readonly findings: readonly Finding[];
  /** To be created by `store` before the domain comes. */
  readonly images: readonly ImageRequest[];
  readonly store: ImageStore;
  /** libvirt creates these. */
  readonly volumes: NewVolumes;
  readonly nvram: NewNvram;
}

/**
 * Touches nothing.
 *
 * @throws LibvirtError when libvirt does not answer
 */
export async function destPreflight(
  connection: LibvirtConnection,
  facts: DomainFacts,
  { postcopy, policy }: { readonly postcopy: boolean; readonly policy: DestPolicy },
): Promise<DestPreflight> {
  const view = new HostView(policy.hostRoot);
  const host = await gatherHost(connection, facts, { view, policy });
  const { requests, findings } = imageRequests(facts);
  const store = new ImageStore({
    directories: policy.imageDirectories,
    baseDirectories: policy.baseImageDirectories,
    owner: host.qemuUser,
  });
  const found = [
    ...(facts.change === undefined
      ? []
      : forbiddenChanges(joinXml(facts.change.from), joinXml(facts.change.to), policy.allowXmlChanges)),
    ...destFindings(facts, host, { postcopy }),
    ...(await misplacedDisks(facts.shape, requests, policy)),
    ...findings,
    ...(await store.check(requests)),
  ];
  const volumes = new NewVolumes(volumesToCome(facts, host), (path) => view.bornMs(path));
  const nvram = new NewNvram(nvramToCome(facts, host), {
    root: policy.hostRoot ?? '/',
    directories: policy.imageDirectories,
  });
  return { findings: refusalsFirst(found), images: requests, store, volumes, nvram };
}

/** Nothing is known to be there. */
function nvramToCome({ shape: { nvram } }: DomainFacts, { places }: HostFacts): string | undefined {
  return nvram !== undefined && places.get(nvram.path)?.found === 'nothing' ? nvram.path : undefined;
}

/** Of the disks that are copied: those that are not there yet. */
function volumesToCome(facts: DomainFacts, { volumes }: HostFacts): VolumeName[] {
  return facts.shape.disks.flatMap((disk) => {
    const { source, target } = disk;
    const creates = isCopied(disk, facts) && volumes.get(target)?.found === 'nothing';
    return creates && source.type === 'volume' ? [{ pool: source.pool, volume: source.volume }] : [];
  });
}

/** What libvirt would open because the other host's XML says so. */
async function misplacedDisks(
  { disks }: DomainShape,
  created: readonly ImageRequest[],
  { diskDirectories, imageDirectories, baseImageDirectories }: DestPolicy,
): Promise<Finding[]> {
  if (diskDirectories === undefined) return [];
  const allowed = [...diskDirectories, ...imageDirectories, ...baseImageDirectories];
  const findings = disks.map(async ({ target, source }) => {
    if (!('path' in source) || created.some((image) => image.target === target)) return [];
    const place = await confineExisting(source.path, allowed);
    // What is not there is told by the rules.
    if (place.ok || place.why === 'no-directory') return [];
    return [
      refusal(
        'E_REFUSED',
        `the destination agent takes no disk at ${source.path} (${target}): ${place.words}`,
        "Name its directory in libvirt.diskDirectories of the destination agent's configuration.",
      ),
    ];
  });
  return (await Promise.all(findings)).flat();
}
