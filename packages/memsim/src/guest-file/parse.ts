/** From a guest file's text to what it says, with the line of everything that is wrong in it. */
import { CheckedDocument } from '../checked-document.ts';
import { GuestFileError } from './errors.ts';
import { type GuestFile, guestFileSchema } from './schema.ts';

const MAX_TEXT = 1024 * 1024;
const REMEDY =
  'Correct the file, which is YAML or JSON; docs/memsim.md has all keys, guest-file.schema.json has them for editors.';

/**
 * YAML or JSON. `file` is for messages.
 *
 * @throws GuestFileError with all faults in one message
 */
export function parseGuestFile(text: string, file: string): GuestFile {
  const document = new CheckedDocument(text, {
    file,
    most: MAX_TEXT,
    needed: 'a guest file is a list of keys and values',
    error: (message, cause) => new GuestFileError(message, REMEDY, cause === undefined ? {} : { cause }),
  });
  return document.check(guestFileSchema, document.content);
}
