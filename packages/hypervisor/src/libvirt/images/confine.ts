/** Paths that another host named, held within directories that this host's configuration names. */
import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

export type Confined =
  /** `directory` has no symbolic links left in it. */
  | { readonly ok: true; readonly directory: string; readonly name: string }
  | { readonly ok: false; readonly why: 'outside' | 'no-directory'; readonly words: string };

export interface NamedDirectory {
  /** As libvirt and its QEMUs see it. */
  readonly path: string;
  /** The same directory as this agent sees it. */
  readonly here: string;
}

/**
 * Where a file of this path would be, as this agent sees it. Its directory has to be there; the file itself need not,
 * and is not followed where it is a link.
 */
export async function confine(path: string, directories: readonly NamedDirectory[]): Promise<Confined> {
  return await among(path, directories, async (seen) => ({
    directory: await realpath(dirname(seen)),
    name: basename(seen),
  }));
}

/** A file that is there, by its own place: a link to it counts as what it leads to. */
export async function confineExisting(
  path: string,
  directories: readonly NamedDirectory[],
): Promise<Confined> {
  return await among(path, directories, async (seen) => {
    const real = await realpath(seen);
    return { directory: dirname(real), name: basename(real) };
  });
}

async function among(
  path: string,
  directories: readonly NamedDirectory[],
  locate: (seen: string) => Promise<{ readonly directory: string; readonly name: string }>,
): Promise<Confined> {
  if (!path.startsWith('/') || path.includes('\0') || path !== resolve(path) || path === '/') {
    return { ok: false, why: 'outside', words: 'it is no plain absolute path' };
  }
  let missing: string | undefined;
  for (const allowed of directories) {
    const within = isWithin(path, allowed.path);
    // A link may lead to a directory that is seen under the same path, and to no other.
    if (!within && allowed.path !== allowed.here) continue;
    const seen = within ? join(allowed.here, path.slice(allowed.path.length)) : path;
    try {
      const place = await locate(seen);
      if (isWithin(place.directory, await realpath(allowed.here))) return { ok: true, ...place };
    } catch (error) {
      const words = wordsOf(error);
      // Of what is elsewhere nothing is told, not even whether it is there.
      if (within) missing = words;
    }
  }
  return missing === undefined
    ? { ok: false, why: 'outside', words: 'it is in none of the directories that are allowed' }
    : { ok: false, why: 'no-directory', words: missing };
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

/** Whether anything has this name, a link that leads nowhere included. */
export async function isTaken({ directory, name }: { directory: string; name: string }): Promise<boolean> {
  try {
    await lstat(join(directory, name));
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}

function wordsOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === undefined) throw error;
  return (
    { ENOENT: 'it is not there', ENOTDIR: 'it is not there', EACCES: 'permission denied' }[String(code)] ??
    String(code)
  );
}
