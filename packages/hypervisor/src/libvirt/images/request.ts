/** Which disk images the destination has to create before a migration that copies disks. Pure. */
import { isCopied } from '../preflight/copied-disks.ts';
import { type DomainFacts, imageOf } from '../preflight/domain-facts.ts';
import { type Finding, refusal } from '../preflight/finding.ts';

/** What vmferry creates images of. */
const formats = ['raw', 'qcow2'] as const;
export type ImageFormat = (typeof formats)[number];

const SECTOR_BYTES = 512;
/** More than any of the formats holds. */
const MAX_BYTES = 8 * 1024 ** 5;

export interface ImageRequest {
  /** In the guest: "vda". */
  readonly target: string;
  readonly path: string;
  readonly format: ImageFormat;
  /** What the guest sees. */
  readonly virtualBytes: number;
  /** What will at least be written to it. */
  readonly contentBytes: number;
  /** What lies below it and is at the destination already. */
  readonly backing?: { readonly path: string; readonly format: ImageFormat };
}

export interface ImageRequests {
  readonly requests: readonly ImageRequest[];
  readonly findings: readonly Finding[];
}

/** Those of files. Block devices are the operator's to create, volumes of pools libvirt's. */
export function imageRequests(facts: DomainFacts): ImageRequests {
  const requests: ImageRequest[] = [];
  const findings: Finding[] = [];
  for (const disk of facts.shape.disks) {
    if (disk.source.type !== 'file' || !isCopied(disk, facts)) continue;
    const { target, source, format } = disk;
    if (disk.encryption !== '') {
      findings.push(unsupported(`disk ${target} is encrypted (${disk.encryption})`));
      continue;
    }
    const image = imageOf(facts, target);
    const virtualBytes = image?.virtualBytes;
    if (!isFormat(format)) {
      findings.push(unsupported(`disk ${target} is of the format "${format}"`));
      continue;
    }
    if (
      virtualBytes === undefined ||
      virtualBytes <= 0 ||
      virtualBytes > MAX_BYTES ||
      virtualBytes % SECTOR_BYTES !== 0
    ) {
      findings.push(
        unsupported(`the size of disk ${target} is not one that an image has (${virtualBytes ?? 'unknown'})`),
      );
      continue;
    }
    const [base] = facts.copyStorage === 'inc' ? disk.backing : [];
    if (base !== undefined && (base.source.type !== 'file' || !isFormat(base.format) || format !== 'qcow2')) {
      findings.push(unsupported(`disk ${target} lies on a backing image that is no raw or qcow2 file`));
      continue;
    }
    const backing =
      base?.source.type === 'file' && isFormat(base.format)
        ? { backing: { path: base.source.path, format: base.format } }
        : {};
    const contentBytes = Math.min(image?.allocatedBytes ?? virtualBytes, virtualBytes);
    requests.push({ target, path: source.path, format, virtualBytes, contentBytes, ...backing });
  }
  return { requests, findings };
}

const isFormat = (format: string): format is ImageFormat => (formats as readonly string[]).includes(format);

function unsupported(message: string): Finding {
  return refusal(
    'E_UNSUPPORTED',
    `${message}: vmferry cannot create its image`,
    'Convert it to raw or qcow2, or put it on storage that both hosts see.',
  );
}
