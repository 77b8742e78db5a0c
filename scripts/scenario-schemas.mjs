// Writes packages/memsim/{scenario,sweep}.schema.json anew. Needs a build; a test says when they are due.
import { writeFile } from 'node:fs/promises';
import { scenarioJsonSchema, sweepJsonSchema } from '../packages/memsim/dist/scenario/json-schema.js';

for (const [file, schema] of [
  ['scenario.schema.json', scenarioJsonSchema()],
  ['sweep.schema.json', sweepJsonSchema()],
]) {
  const target = new URL(`../packages/memsim/${file}`, import.meta.url);
  await writeFile(target, `${JSON.stringify(schema, null, 2)}\n`);
}
