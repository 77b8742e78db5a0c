/** What a scenario says: a guest, a link, what hosts take, a strategy with its goals. */
import { compressModes, migrateRequestSchema, stallActions, strategies } from '@vmferry/engine/options';
import { z } from 'zod';
import { wholePages } from '../guest-file/quantities.ts';
import { guestFileSchema } from '../guest-file/schema.ts';
import { costNames } from './costs.ts';
import { duration, rate, size } from './quantities.ts';

const conditions = {
  bandwidth: rate.meta({ description: 'Of the line, as `tc` limits it. 0bit carries nothing.' }),
  latency: duration.optional().meta({ description: 'One way. Default 0.1ms.' }),
  loss: z.number().min(0).max(0.5).optional().meta({ description: 'Share of the packets, 0 to 0.5.' }),
  competing: z
    .strictObject({
      rate: rate.optional().meta({ description: 'Traffic that does not give way.' }),
      streams: z.int().min(0).max(1000).optional().meta({ description: 'TCP streams that share the line.' }),
    })
    .optional(),
};

/** TCP sends no less at a time. */
const LEAST_WINDOW = 4096;

export const linkSchema = z
  .strictObject({
    ...conditions,
    windowPerStream: size
      .refine((bytes) => bytes >= LEAST_WINDOW, 'at least 4KiB')
      .optional()
      .meta({ description: 'The most that a stream sends ahead. 16MiB.' }),
    changes: z
      .array(z.strictObject({ at: duration, ...conditions, bandwidth: conditions.bandwidth.optional() }))
      .max(1000)
      .default([])
      .meta({ description: 'What is different from then on; what is not named stays as it was.' }),
  })
  .meta({ description: 'The network between the hosts.' });
export type LinkInScenario = z.output<typeof linkSchema>;

const micros = z.number().min(0).max(1e6);
const millis = z.number().min(0).max(1e7);
const byteCount = z
  .number()
  .min(0)
  .max(2 ** 40);

/** A name, and what is different. */
export const ownCostsSchema = z.strictObject({
  like: z.enum(costNames).default('vmferry'),
  setupMs: millis.optional(),
  scanPageUs: micros.optional(),
  sendPageUs: micros.optional(),
  takePageUs: micros.optional(),
  packCores: z.number().min(0.1).max(1024).optional(),
  roundMs: millis.optional(),
  roundMsPerGiB: millis.optional(),
  stopMs: millis.optional(),
  bufferedMs: millis.optional(),
  bufferedBytes: byteCount.optional(),
  inFlightMs: millis.optional(),
  inFlightBytes: byteCount.optional(),
  deviceStateBytes: byteCount.optional(),
  loadStateMs: millis.optional(),
  postcopyStateMs: millis.optional(),
  missingMsPerGiB: millis.optional(),
  discardUs: micros.optional(),
  heldBytes: byteCount.optional(),
  heldBatches: z.number().min(0).max(1024).optional(),
  leadMs: millis.optional(),
  leadBytes: byteCount.optional(),
  commitMs: millis.optional(),
  resumeMs: millis.optional(),
  postcopyResumeMs: millis.optional(),
  faultMs: millis.optional(),
  batchMs: millis.optional(),
  pathTripMs: millis.optional(),
  completeMs: millis.optional(),
});

const costsSchema = z
  .union([z.enum(costNames), ownCostsSchema], {
    error: `there are ${costNames.join(', ')}; or a name and what is different, as in {like: vmferry, faultMs: 1}`,
  })
  .meta({ description: 'What hosts take for their part: a name, or a name and what is different.' });

/** The bounds are those of a migration. */
const { maxDowntimeMs, deadlineMs, headStartMs, maxBandwidth } = migrateRequestSchema.shape;

const within = (bounds: z.ZodType) => (value: number) => bounds.safeParse(value).success;

export const migrationSchema = z.strictObject({
  strategy: z.enum(strategies).optional(),
  maxDowntime: duration.refine(within(maxDowntimeMs.unwrap()), 'from 1ms to 2000s').optional(),
  deadline: duration.refine(within(deadlineMs.unwrap()), 'from 1ms to 7d').optional(),
  headStart: duration.refine(within(headStartMs.unwrap()), 'at most 60s').optional(),
  maxBandwidth: rate.refine(within(maxBandwidth.unwrap()), 'at most 1TB/s').optional(),
  streams: z.int().min(1).max(16).optional(),
  compress: z.enum(compressModes).optional(),
  onStall: z.enum(stallActions).optional(),
});

const hypervisorSchema = z.strictObject({
  dirtyLog: z
    .enum(['round', 'send', 'skip'])
    .default('round')
    .meta({
      description:
        'When the dirty log forgets a page: at the begin of a round, when the page is sent, or as at the begin ' +
        'of a round, but a page written again before its turn waits for the next (Xen).',
    }),
  oneLiveRound: z.boolean().default(false).meta({ description: 'QEMU before 9.0 under TCG.' }),
  postcopyObstacle: z.string().max(200).optional().meta({ description: 'Why post-copy is not possible.' }),
});

const policySchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('vmferry') }),
  z.strictObject({ kind: z.literal('adaptive-rate'), minRate: rate, maxRate: rate }),
]);

const postcopySchema = z.strictObject({
  channel: z.enum(['express', 'shared']).default('express'),
  prepaging: z.enum(['around', 'pivot', 'none']).default('around'),
  queued: size.optional().meta({ description: 'On a shared channel: what sockets hold before an answer.' }),
});

/** What a published result says of itself. */
const sourceSchema = z.strictObject({
  what: z.string().max(400),
  where: z.string().max(400),
  gives: z.array(z.string().max(400)).min(1).max(40),
  assumed: z.array(z.string().max(600)).max(40),
});

export const figureNames = [
  'totalMs',
  'downtimeMs',
  'wireBytes',
  'finalBytes',
  'firstRoundMs',
  'laterMs',
  'faultShare',
  'pagesTwice',
  'faultWaitMs',
] as const;
export type FigureName = (typeof figureNames)[number];

const expectSchema = z.strictObject({
  figure: z.enum(figureNames),
  value: z.number(),
  within: z.number().min(0).max(1).default(0.2),
  atMost: z.boolean().default(false).meta({ description: 'The value is a bound, not a measurement.' }),
});

const guestSchema = z.union([
  z.string().min(1).max(4096).meta({ description: 'A guest of the library, by its name.' }),
  z.strictObject({ file: z.string().min(1).max(4096) }),
  guestFileSchema,
]);

const ranSchema = duration.optional().meta({
  description: 'How long the guest ran before. 30s; 0s where its workload has a trace, which is played once.',
});

export const scenarioSchema = z
  .strictObject({
    name: z.string().min(1).max(100).optional(),
    about: z.string().max(2000).optional(),
    source: sourceSchema.optional(),
    guest: guestSchema,
    memory: size
      .superRefine(wholePages)
      .optional()
      .meta({ description: "Instead of the guest's own, in whole pages." }),
    textLeft: z
      .number()
      .min(0.01)
      .max(1)
      .optional()
      .meta({ description: 'Share that LZ4 leaves of a page of text, where that was measured. 0.507.' }),
    ran: ranSchema,
    link: linkSchema,
    costs: costsSchema.default('vmferry'),
    migration: migrationSchema.default({}),
    hypervisor: hypervisorSchema.prefault({}),
    policy: policySchema.default({ kind: 'vmferry' }),
    postcopy: postcopySchema.prefault({}),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(1),
    expect: z.array(expectSchema).max(20).default([]),
  })
  .meta({ title: 'vmferry scenario' });
export type ScenarioFile = z.output<typeof scenarioSchema>;

const MAX_AXIS = 1000;

export const sweepSchema = z
  .strictObject({
    name: z.string().min(1).max(100).optional(),
    about: z.string().max(2000).optional(),
    strategies: z.array(z.enum(strategies)).min(1).default(['auto', 'precopy', 'postcopy', 'hybrid']),
    guests: z.array(guestSchema).min(1).max(MAX_AXIS),
    links: z
      .record(z.string().min(1).max(100), linkSchema)
      .refine((links) => {
        const count = Object.keys(links).length;
        return count >= 1 && count <= MAX_AXIS;
      }, `name at least one link, and at most ${MAX_AXIS}`)
      .meta({ minProperties: 1, maxProperties: MAX_AXIS }),
    sizes: z
      .array(size.superRefine(wholePages))
      .min(1)
      .max(MAX_AXIS)
      .optional()
      .meta({ description: "Instead of the guests' own, in whole pages." }),
    ran: ranSchema,
    costs: costsSchema.default('vmferry'),
    migration: migrationSchema.omit({ strategy: true }).default({}),
    hypervisor: hypervisorSchema.prefault({}),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(1),
  })
  .meta({ title: 'vmferry sweep' });
export type SweepFile = z.output<typeof sweepSchema>;
