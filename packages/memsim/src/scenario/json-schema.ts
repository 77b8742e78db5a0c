/** The JSON Schemas of scenarios and sweeps, for editors, made from the schemas themselves. */
import { z } from 'zod';
import { scenarioSchema, sweepSchema } from './schema.ts';

export const scenarioJsonSchema = (): unknown =>
  z.toJSONSchema(scenarioSchema, { io: 'input', target: 'draft-7' });

export const sweepJsonSchema = (): unknown => z.toJSONSchema(sweepSchema, { io: 'input', target: 'draft-7' });
