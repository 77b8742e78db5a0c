/** Which file system a path is on, and whether other hosts may have it mounted, too. */
import { readFile, realpath } from 'node:fs/promises';

/** Source: Documentation/filesystems of Linux; those that several hosts can write to at a time. */
const SHARED = new Set([
  'nfs',
  'nfs4',
  'cifs',
  'smb3',
  'ceph',
  'gfs2',
  'ocfs2',
  'gpfs',
  'lustre',
  'afs',
  'beegfs',
  'acfs',
  'virtiofs',
  '9p',
]);

interface Mount {
  readonly path: string;
  readonly type: string;
}

export interface FileSystem {
  /** "ext4"; "" where it cannot be told. */
  readonly filesystem: string;
  readonly shared: boolean;
}

/** The mounts as this process sees them. */
export class FileSystems {
  readonly #mounts: readonly Mount[];

  static async read(): Promise<FileSystems> {
    return new FileSystems(await readFile('/proc/self/mountinfo', 'utf8'));
  }

  /** @param mountinfo as `proc_pid_mountinfo(5)` has it */
  constructor(mountinfo: string) {
    this.#mounts = mountinfo.split('\n').flatMap((line) => {
      const [before, after] = line.split(' - ');
      const path = before?.split(' ')[4];
      const type = after?.split(' ')[0];
      return path === undefined || type === undefined ? [] : [{ path: unescaped(path), type }];
    });
  }

  /** Of a path that is there. */
  async of(path: string): Promise<FileSystem> {
    return this.at(await realpath(path));
  }

  /** Of an absolute path without symbolic links. */
  at(path: string): FileSystem {
    const covering = this.#mounts.filter((mount) => isWithin(path, mount.path));
    // The deepest counts, and of several on one place the last.
    const mount = covering.reduce<Mount | undefined>(
      (best, each) => (best === undefined || each.path.length >= best.path.length ? each : best),
      undefined,
    );
    const type = mount?.type ?? '';
    return { filesystem: type.slice(0, 64), shared: SHARED.has(type) || isSharedFuse(type) };
  }
}

function isWithin(path: string, directory: string): boolean {
  return directory === '/' || path === directory || path.startsWith(`${directory}/`);
}

/** Of FUSE's, only those that are known to be of a cluster. */
function isSharedFuse(type: string): boolean {
  return ['fuse.glusterfs', 'fuse.ceph', 'fuse.moosefs', 'fuse.mfs', 'fuse.quobyte', 'fuse.juicefs'].includes(
    type,
  );
}

/** Blanks and the like are written as "\040". */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
