/** Text files that a person names: UTF-8, of a bounded size. What is wrong is thrown as words. */
import { readFileSync, statSync } from 'node:fs';
import { messageOf } from '@vmferry/engine/errors';

/** Why a text cannot be had: "there is no such file". */
export class UnreadableText extends Error {
  override readonly name = 'UnreadableText';
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
};

/**
 * A file, or a pipe (`<(...)`) until it ends. Devices are refused: they may have no end.
 *
 * @param most bytes
 * @throws UnreadableText
 */
export function readText(path: string, most: number): string {
  const bytes = readBytes(path, most);
  if (bytes.length > most) throw tooBig(most);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new UnreadableText('it is no UTF-8 text', { cause });
  }
}

function readBytes(path: string, most: number): Buffer {
  try {
    const stat = statSync(path);
    if (stat.isFile() ? stat.size > most : !stat.isFIFO() && !stat.isDirectory())
      throw stat.isFile() ? tooBig(most) : new UnreadableText('it is no file');
    return readFileSync(path);
  } catch (cause) {
    if (cause instanceof UnreadableText) throw cause;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    const why = messageOf(cause);
    throw new UnreadableText(REASONS[code] ?? why, { cause });
  }
}

function tooBig(most: number): UnreadableText {
  return new UnreadableText(`it is bigger than ${most / 1024 ** 2} MiB`);
}
