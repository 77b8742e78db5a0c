/** The JSON Schema of guest files, for editors: `guest-file.schema.json`, made from the schema itself. */
import { z } from 'zod';
import { guestFileSchema } from './schema.ts';

export function guestFileJsonSchema(): unknown {
  return z.toJSONSchema(guestFileSchema, { io: 'input', target: 'draft-7' });
}
