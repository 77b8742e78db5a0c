/**
 * What a guest file says: a simulated guest's memory, what is in it, and the workload that writes it.
 *
 * Page numbers are relative to the guest's memory, rates are pages a second over all vCPUs. A workload's clock
 * starts at 0 when the guest starts and stands still while the guest does.
 */
import { PAGE_BYTES } from '@vmferry/engine/units';
import { z } from 'zod';
import { duration, memorySize, pageCount, pageNumber, pageRate } from './quantities.ts';

/** Workloads in workloads: deeper than this nobody can say any more what they do. */
const MAX_DEPTH = 4;
const MAX_PARTS = 32;

const regionSchema = z
  .strictObject({ first: pageNumber, pages: pageCount })
  .meta({ description: 'Where the workload writes; by default everywhere.' });
export type Region = z.output<typeof regionSchema>;

const region = regionSchema.optional();
const pagesPerSec = pageRate;

const idle = z.strictObject({ kind: z.literal('idle') }).meta({ description: 'Writes nothing.' });

const uniform = z
  .strictObject({ kind: z.literal('uniform'), pagesPerSec, region })
  .meta({ description: 'Every page is as likely as any other.' });

const zipf = z
  .strictObject({
    kind: z.literal('zipf'),
    pagesPerSec,
    exponent: z.number().min(0.1).max(4).meta({
      description: 'How much the favourites are favoured: the page of rank r is written r^-exponent.',
    }),
    region,
  })
  .meta({ description: 'A few pages are written often, most of them rarely; favourites lie scattered.' });

const sequential = z
  .strictObject({ kind: z.literal('sequential'), pagesPerSec, region })
  .meta({ description: 'One page after the other, over and over.' });

const strided = z
  .strictObject({
    kind: z.literal('strided'),
    pagesPerSec,
    stride: pageCount,
    region,
  })
  .meta({ description: 'Every stride-th page; a pass that ends goes on one page further.' });

const hotAndCold = z
  .strictObject({
    kind: z.literal('hot-and-cold'),
    pagesPerSec,
    hotPages: pageCount,
    hotShare: z
      .number()
      .min(0)
      .max(1)
      .meta({ description: 'Share of the writes that goes to the hot pages, 0 to 1.' }),
    region,
  })
  .meta({
    description: "The region's first hotPages pages take hotShare of the writes, the others the rest.",
  });

const moving = z
  .strictObject({
    kind: z.literal('moving'),
    pagesPerSec,
    windowPages: pageCount,
    everySeconds: duration,
    stepPages: pageCount,
    region,
  })
  .meta({ description: 'A working set that moves on by stepPages every so often.' });

const forkBursts = z
  .strictObject({
    kind: z.literal('fork-bursts'),
    pagesPerSec,
    burstPages: pageCount,
    everySeconds: duration,
    region,
  })
  .meta({
    description:
      'Uniform writes, and every so often burstPages neighbouring pages all at once, as after a fork.',
  });

const readMostly = z
  .strictObject({ kind: z.literal('read-mostly'), readsPerSec: pageRate, pagesPerSec, region })
  .meta({
    description: 'Uniform reads, which wait for missing pages but dirty nothing, and uniform writes.',
  });

const trace = z.strictObject({ kind: z.literal('trace'), file: z.string().min(1).max(4096) }).meta({
  description:
    'A recorded workload, played once: lines of "MILLISECONDS PAGE r|w", in order of time. ' +
    'The path is relative to the guest file.',
});

const phase = z.strictObject({
  seconds: duration,
  get workload(): z.ZodType<Workload, WorkloadInput> {
    return workloadSchema;
  },
});

const phases = z
  .strictObject({ kind: z.literal('phases'), phases: z.array(phase).min(1).max(MAX_PARTS) })
  .meta({
    description: 'One workload after the other, over and over. Each stands still while it is not its turn.',
  });

const mix = z
  .strictObject({
    kind: z.literal('mix'),
    get parts(): z.ZodArray<z.ZodType<Workload, WorkloadInput>> {
      return z.array(workloadSchema).min(1).max(MAX_PARTS);
    },
  })
  .meta({ description: 'Several workloads at once.' });

const simpleWorkloads = [
  idle,
  uniform,
  zipf,
  sequential,
  strided,
  hotAndCold,
  moving,
  forkBursts,
  readMostly,
  trace,
] as const;

/** A workload that is not made of others. */
export type SimpleWorkload = z.output<(typeof simpleWorkloads)[number]>;
type SimpleWorkloadInput = z.input<(typeof simpleWorkloads)[number]>;

export interface PhasesWorkload {
  kind: 'phases';
  phases: { seconds: number; workload: Workload }[];
}

export interface MixWorkload {
  kind: 'mix';
  parts: Workload[];
}

export type Workload = SimpleWorkload | PhasesWorkload | MixWorkload;
export type WorkloadKind = Workload['kind'];

type WorkloadInput =
  | SimpleWorkloadInput
  | { kind: 'phases'; phases: { seconds: number; workload: WorkloadInput }[] }
  | { kind: 'mix'; parts: WorkloadInput[] };

export const workloadSchema: z.ZodType<Workload, WorkloadInput> = z
  .discriminatedUnion('kind', [...simpleWorkloads, phases, mix])
  .meta({ id: 'workload' });

const share = z.number().min(0).max(1).default(0);

/** Shares of the pages when the guest starts. */
const contentSchema = z
  .strictObject({
    zero: share.meta({ description: 'Pages of zeroes.' }),
    text: share.meta({ description: 'Pages that LZ4 makes about half as big.' }),
    random: share.meta({ description: 'Pages that do not compress.' }),
    duplicate: share.meta({ description: 'Pages of which there are many that are the same.' }),
  })
  .refine(
    ({ zero, text, random, duplicate }) => Math.abs(zero + text + random + duplicate - 1) < 1e-6,
    'zero, text, random and duplicate must add up to 1',
  )
  .meta({ description: 'What memory holds when the guest starts: shares that add up to 1.' });
export type ContentMix = z.output<typeof contentSchema>;

export const DEFAULT_CONTENT: ContentMix = { zero: 0.3, text: 0.4, random: 0.2, duplicate: 0.1 };

export const guestFileSchema = z
  .strictObject({
    name: z
      .string()
      .max(64)
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'letters, digits, ".", "_" and "-", at most 64')
      .meta({ description: 'The guest is sim:NAME.' }),
    memory: memorySize,
    vcpus: z.int().min(1).max(64).default(1).meta({ description: 'Each is a thread.' }),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(1)
      .meta({ description: 'Content and workload follow from it; two guests of one seed do the same.' }),
    content: contentSchema.default(DEFAULT_CONTENT),
    workload: workloadSchema.default({ kind: 'idle' }),
  })
  .superRefine((guest, context) => {
    const guestPages = guest.memory / PAGE_BYTES;
    for (const { path, message } of workloadFaults(guest.workload, guestPages, 1)) {
      context.addIssue({ code: 'custom', path: ['workload', ...path], message });
    }
  })
  .meta({ title: 'vmferry simulated guest' });

/** A simulated guest as its file describes it. `memory` in bytes, rates in pages a second. */
export type GuestFile = z.output<typeof guestFileSchema>;

interface Fault {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** What a workload asks of a guest that is not that big. */
function workloadFaults(workload: Workload, guestPages: number, depth: number): Fault[] {
  if (depth > MAX_DEPTH) return [{ path: [], message: `workloads in workloads, at most ${MAX_DEPTH} deep` }];
  const within = (inner: Workload, ...path: (string | number)[]): Fault[] =>
    workloadFaults(inner, guestPages, depth + 1).map((fault) => ({
      ...fault,
      path: [...path, ...fault.path],
    }));
  switch (workload.kind) {
    case 'idle':
    case 'trace':
      return [];
    case 'phases':
      return workload.phases.flatMap((part, index) => within(part.workload, 'phases', index, 'workload'));
    case 'mix':
      return workload.parts.flatMap((part, index) => within(part, 'parts', index));
    default:
      return regionFaults(workload, guestPages);
  }
}

function regionFaults(
  workload: Extract<SimpleWorkload, { region?: Region | undefined }>,
  guestPages: number,
): Fault[] {
  const { first, pages } = workload.region ?? { first: 0, pages: guestPages };
  if (first + pages > guestPages) {
    return [
      { path: ['region'], message: `it ends beyond the guest's memory, which has ${guestPages} pages` },
    ];
  }
  const sizes: (readonly [string, number])[] =
    workload.kind === 'strided'
      ? [['stride', workload.stride]]
      : workload.kind === 'hot-and-cold'
        ? [['hotPages', workload.hotPages]]
        : workload.kind === 'moving'
          ? [
              ['windowPages', workload.windowPages],
              ['stepPages', workload.stepPages],
            ]
          : workload.kind === 'fork-bursts'
            ? [['burstPages', workload.burstPages]]
            : [];
  return sizes
    .filter(([, size]) => size > pages)
    .map(([key, size]) => ({
      path: [key],
      message: `${size} pages are more than the ${pages} that the workload has`,
    }));
}
