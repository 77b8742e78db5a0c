import { readFileSync } from 'node:fs';

/*
 * What a run makes outside its own memory is named vmft-<pid>-<start time>-…: pid and start time say whose it
 * is, also after the pid was given to another process.
 */

/** Start time of a process in clock ticks since boot, or undefined if there is none. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The beginning of every name that this process gives. */
export function ownPrefix(): string {
  return `vmft-${process.pid}-${startTime(process.pid)}`;
}

/** Whether a name was given by a run whose process is gone. */
export function isLeftover(name: string): boolean {
  const match = /^vmft-(\d+)-(\d+)-/.exec(name);
  return match !== null && startTime(Number(match[1])) !== match[2];
}
