// Writes packages/memsim/guest-file.schema.json anew. Needs a build; a test says when it is due.
import { writeFile } from 'node:fs/promises';
import { guestFileJsonSchema } from '../packages/memsim/dist/guest-file/json-schema.js';

const target = new URL('../packages/memsim/guest-file.schema.json', import.meta.url);
await writeFile(target, `${JSON.stringify(guestFileJsonSchema(), null, 2)}\n`);
