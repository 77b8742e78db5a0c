/**
 * Disk images at the destination, created for guests whose disks are copied. A peer names the paths; the agent's own
 * configuration names the directories in which it may.
 *
 * Nothing is ever overwritten: an image is created under a name that was free, through the directory that was checked
 * (its descriptor, so that nobody can put a link in its place), and `qemu-img` gets the open file.
 */
import { constants, type FileHandle, lstat, open, readlink, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { GuestError } from '@vmferry/engine/errors';
import { type Finding, refusal, warning } from '../preflight/finding.ts';
import { inUnits } from '../preflight/rules/words.ts';
import { type Confined, confine, confineExisting, isTaken, type NamedDirectory } from './confine.ts';
import { createImage } from './qemu-img.ts';
import type { ImageRecord } from './record.ts';
import type { ImageRequest } from './request.ts';

export interface ImageStoreOptions {
  /** Images may be created in these and below. None: none may. */
  readonly directories: readonly NamedDirectory[];
  /** Backing images may lie in these as well. */
  readonly baseDirectories?: readonly NamedDirectory[];
  /** Whom an image belongs to: the user that QEMU runs as. Only root can give it away. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
  /** By default the `qemu-img` of the PATH. */
  readonly qemuImg?: string;
}

interface Created {
  readonly path: string;
  /** Held open, so that its inode is no other file's. */
  readonly file: FileHandle;
}

const MODE = 0o600;

/** Images that were created and whose guest has not come yet. */
export class CreatedImages {
  #created: readonly Created[];
  readonly #record: ImageRecord | undefined;

  constructor(created: readonly Created[], record?: ImageRecord) {
    this.#created = created;
    this.#record = record;
  }

  get paths(): readonly string[] {
    return this.#created.map(({ path }) => path);
  }

  /** The guest is here: they are its own now. */
  async keep(): Promise<void> {
    await this.#record?.forget();
    await this.leave();
  }

  /** They stay, and whoever settles what this agent leaves may remove them. Any number of times. */
  async leave(): Promise<void> {
    const created = this.#created;
    this.#created = [];
    await Promise.all(created.map(({ file }) => file.close()));
  }

  /** The migration was given up. What somebody else has put in an image's place stays. Any number of times. */
  async remove(): Promise<void> {
    const created = this.#created;
    this.#created = [];
    await removeAll(created);
    await this.#record?.forget();
  }
}

export class ImageStore {
  readonly #options: ImageStoreOptions;

  constructor(options: ImageStoreOptions) {
    this.#options = options;
  }

  /** What is in the way of creating these images, all of it. Touches nothing. */
  async check(requests: readonly ImageRequest[]): Promise<Finding[]> {
    const places = await Promise.all(
      requests.map(async (request) => ({ request, place: await this.#place(request.path) })),
    );
    const findings: Finding[] = [];
    const seen = new Set<string>();
    for (const { request, place } of places) {
      findings.push(...(await this.#checkOne(request, place)));
      if (!place.ok) continue;
      const path = join(place.directory, place.name);
      if (seen.has(path))
        findings.push(refusal('E_FILE_EXISTS', `two disks are to be ${path}`, 'Give each its own path.'));
      seen.add(path);
    }
    return [...findings, ...(await room(places))];
  }

  /**
   * Creates all of them, or none.
   *
   * @param record notes them until their guest is here
   * @throws GuestError E_REFUSED, E_FILE_EXISTS, E_FILE_MISSING, E_NO_SPACE, E_GUEST_FAILED
   */
  async create(requests: readonly ImageRequest[], record?: ImageRecord): Promise<CreatedImages> {
    const inTheWay = (await this.check(requests)).find(({ severity }) => severity === 'refusal');
    if (inTheWay !== undefined) throw new GuestError(inTheWay.code, inTheWay.message, inTheWay.remedy);
    const created: Created[] = [];
    try {
      for (const request of requests) await this.#createOne(request, created, record);
    } catch (error) {
      await removeAll(created);
      await record?.forget();
      throw error;
    }
    return new CreatedImages(created, record);
  }

  #place(path: string): Promise<Confined> {
    return confine(path, this.#options.directories);
  }

  async #checkOne(request: ImageRequest, place: Confined): Promise<Finding[]> {
    const own = place.ok ? await this.#checkName(request, place) : [misplaced(request, place)];
    return [...own, ...(await this.#checkBacking(request))];
  }

  async #checkName({ target, path }: ImageRequest, place: Confined & { ok: true }): Promise<Finding[]> {
    if (!(await isTaken(place))) return [];
    return [
      refusal(
        'E_FILE_EXISTS',
        `disk ${target} is to be copied to ${path}, where the destination has a file already`,
        'Nothing is overwritten: remove or rename that file if it is not needed (as one is not that this domain left when it moved away from there), or migrate without --copy-storage if it is the same storage.',
      ),
    ];
  }

  async #checkBacking({ target, backing }: ImageRequest): Promise<Finding[]> {
    if (backing === undefined) return [];
    const { directories, baseDirectories = [] } = this.#options;
    const place = await confineExisting(backing.path, [...directories, ...baseDirectories]);
    if (place.ok && (await stat(join(place.directory, place.name))).isFile()) return [];
    if (place.ok || place.why !== 'outside') {
      const why = place.ok ? 'it is no file' : place.words;
      return [
        refusal(
          'E_FILE_MISSING',
          `disk ${target} lies on ${backing.path}, which the destination does not have: ${why}`,
          'Copy the backing image there first, at the same path, or copy the whole disk with --copy-storage all.',
        ),
      ];
    }
    return [
      refusal(
        'E_REFUSED',
        `the destination agent lets no disk lie on ${backing.path}: ${place.words}`,
        "Name its directory in libvirt.baseImageDirectories of the destination agent's configuration.",
      ),
    ];
  }

  async #createOne(
    request: ImageRequest,
    created: Created[],
    record: ImageRecord | undefined,
  ): Promise<void> {
    const place = await this.#place(request.path);
    if (!place.ok) {
      const { code, message, remedy } = misplaced(request, place);
      throw new GuestError(code, message, remedy);
    }
    const directory = await open(
      place.directory,
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    );
    try {
      const through = `/proc/self/fd/${directory.fd}`;
      // Between the look and the opening somebody may have put a link on the way.
      if ((await readlink(through)) !== place.directory) throw moved(request.path);
      const file = await openNew(join(through, place.name), request);
      const path = join(place.directory, place.name);
      created.push({ path, file });
      await record?.add(path, file);
      await this.#giveAway(file);
      await createImage(file, request, this.#options.qemuImg);
      await file.sync();
    } finally {
      await directory.close();
    }
  }

  async #giveAway(file: FileHandle): Promise<void> {
    await file.chmod(MODE);
    const { owner } = this.#options;
    if (owner !== undefined && process.getuid?.() === 0) await file.chown(owner.uid, owner.gid);
  }
}

async function openNew(path: string, request: ImageRequest): Promise<FileHandle> {
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR } = constants;
  try {
    return await open(path, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR, MODE);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === undefined) throw cause;
    throw new GuestError(
      code === 'EEXIST' ? 'E_FILE_EXISTS' : 'E_GUEST_FAILED',
      `disk ${request.target} cannot be created at ${request.path}: ${code === 'EEXIST' ? 'there is a file already' : String(code)}`,
      "Check the destination agent's rights in that directory, and what is there.",
      { cause },
    );
  }
}

function moved(path: string): GuestError {
  return new GuestError(
    'E_REFUSED',
    `the directory of ${path} was changed while the image was being created`,
    'Find out who changes it, and try again.',
  );
}

function misplaced({ target, path }: ImageRequest, place: Confined & { ok: false }): Finding {
  if (place.why === 'no-directory') {
    return refusal(
      'E_FILE_MISSING',
      `disk ${target} is to be copied to ${path}, whose directory the destination does not have: ${place.words}`,
      'Create the directory there, or name another path with --dest-xml.',
    );
  }
  return refusal(
    'E_REFUSED',
    `the destination agent creates no image at ${path}: ${place.words}`,
    "Name its directory in libvirt.imageDirectories of the destination agent's configuration, or another path with --dest-xml.",
  );
}

/** On each file system, all of its images together. */
async function room(
  places: readonly { readonly request: ImageRequest; readonly place: Confined }[],
): Promise<Finding[]> {
  const systems = new Map<number, { directory: string; content: number; virtual: number }>();
  for (const { request, place } of places) {
    if (!place.ok) continue;
    const { dev } = await stat(place.directory);
    const { directory, content, virtual } = systems.get(dev) ?? {
      directory: place.directory,
      content: 0,
      virtual: 0,
    };
    systems.set(dev, {
      directory,
      content: content + request.contentBytes,
      virtual: virtual + request.virtualBytes,
    });
  }
  const findings = await Promise.all(
    [...systems.values()].map(async ({ directory, content, virtual }) => {
      const { bavail, bsize } = await statfs(directory);
      const free = bavail * bsize;
      if (content > free) {
        return [
          refusal(
            'E_NO_SPACE',
            `the disks need ${inUnits(content)} in ${directory}, and ${inUnits(free)} are free`,
            'Make room there, or name another directory with --dest-xml.',
          ),
        ];
      }
      if (virtual <= free) return [];
      return [
        warning(
          'E_NO_SPACE',
          `the disks may grow to ${inUnits(virtual)} in ${directory}, and ${inUnits(free)} are free`,
          'Make room there before the guest needs it.',
        ),
      ];
    }),
  );
  return findings.flat();
}

async function removeAll(created: readonly Created[]): Promise<void> {
  const failures: unknown[] = [];
  for (const { path, file } of created) {
    try {
      const [found, own] = [await lstat(path), await file.stat()];
      if (found.dev === own.dev && found.ino === own.ino) await unlink(path);
    } catch (error) {
      // Somebody was faster.
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) failures.push(error);
    } finally {
      await file.close();
    }
  }
  if (failures.length === 0) return;
  throw new GuestError(
    'E_GUEST_FAILED',
    `disk images that were created could not be removed: ${failures.map(String).join('; ')}`,
    'Remove them by hand before the next try.',
    { cause: failures[0] },
  );
}
