/**
 * The operator's API, spoken between the command and an agent on `/v1/operator`: JSON in text messages.
 *
 *     command: {id, op, …} ──▶ agent: {id, event}* then {id, ok: true, result} or {id, ok: false, error}
 *
 * Requests may overlap; `id` is the command's to choose and tells the answers apart.
 */
import { z } from 'zod';
import { type JsonValue, jsonRecord, jsonValue } from './json.ts';

export const MAX_OPERATOR_MESSAGE_BYTES = 1024 * 1024;

const id = z.int().min(0);
const migration = z.string().min(1).max(128);

export const operatorRequestSchema = z.discriminatedUnion('op', [
  z.object({ id, op: z.literal('hello'), token: z.string().max(4096).optional() }),
  z.object({ id, op: z.literal('migrate'), request: jsonRecord }),
  z.object({ id, op: z.literal('list') }),
  z.object({ id, op: z.literal('status'), migration: migration.optional() }),
  z.object({ id, op: z.literal('watch'), migration }),
  z.object({ id, op: z.literal('cancel'), migration }),
]);
export type OperatorRequest = z.output<typeof operatorRequestSchema>;
export type OperatorOp = OperatorRequest['op'];

/** What goes with an operation, without `id` and `op`. */
export type OperatorParams<Op extends OperatorOp> = Omit<
  Extract<z.input<typeof operatorRequestSchema>, { op: Op }>,
  'id' | 'op'
>;

const operatorErrorSchema = z.looseObject({
  code: z.string().max(64),
  message: z.string().max(16_384),
  remedy: z.string().max(16_384),
});

export const operatorReplySchema = z.union([
  z.object({ id, ok: z.literal(true), result: jsonValue }),
  z.object({ id, ok: z.literal(false), error: operatorErrorSchema }),
  z.object({ id, event: jsonValue }),
]);
export type OperatorReply =
  | { readonly id: number; readonly ok: true; readonly result: JsonValue }
  | { readonly id: number; readonly ok: false; readonly error: z.output<typeof operatorErrorSchema> }
  | { readonly id: number; readonly event: JsonValue };

/** The agent's answer to a request that it could not fulfil, with all that it told (side, phase, …). */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  readonly code: string;
  readonly remedy: string;

  constructor(readonly report: { readonly code: string; readonly message: string; readonly remedy: string }) {
    super(report.message);
    this.code = report.code;
    this.remedy = report.remedy;
  }
}
