/** Guests that ship with vmferry: `sim:NAME` without a file. */
import { type GuestFile, guestFileSchema } from './schema.ts';

interface LibraryGuest {
  /** What it stands for, for lists. */
  readonly about: string;
  readonly file: unknown;
}

const LIBRARY: Readonly<Record<string, LibraryGuest>> = {
  idle: {
    about: 'a guest that has nothing to do, with little in its memory',
    file: {
      memory: '256MiB',
      content: { zero: 0.7, text: 0.2, random: 0.05, duplicate: 0.05 },
      workload: { kind: 'idle' },
    },
  },
  web: {
    about: 'a web server: many reads, writes that favour a few pages',
    file: {
      memory: '512MiB',
      vcpus: 2,
      content: { zero: 0.4, text: 0.4, random: 0.1, duplicate: 0.1 },
      workload: {
        kind: 'mix',
        parts: [
          { kind: 'read-mostly', readsPerSec: 4000, pagesPerSec: 100 },
          { kind: 'zipf', pagesPerSec: 1500, exponent: 1.1 },
        ],
      },
    },
  },
  database: {
    about: 'a database: a hot buffer pool, a log that is written in order, checkpoints that come in bursts',
    file: {
      memory: '1GiB',
      vcpus: 2,
      content: { zero: 0.15, text: 0.45, random: 0.35, duplicate: 0.05 },
      workload: {
        kind: 'mix',
        parts: [
          { kind: 'hot-and-cold', pagesPerSec: 4000, hotPages: '64MiB', hotShare: 0.9 },
          { kind: 'sequential', pagesPerSec: 500, region: { first: 245_760, pages: 16_384 } },
          { kind: 'fork-bursts', pagesPerSec: 50, burstPages: '16MiB', everySeconds: 5 },
        ],
      },
    },
  },
  cache: {
    about: 'an in-memory cache: Zipf over nearly all of memory, values that do not compress',
    file: {
      memory: '1GiB',
      vcpus: 2,
      content: { zero: 0.05, text: 0.15, random: 0.75, duplicate: 0.05 },
      workload: { kind: 'zipf', pagesPerSec: 8000, exponent: 0.99 },
    },
  },
  builder: {
    about: 'a build server: bursts of processes, quiet in between',
    file: {
      memory: '512MiB',
      vcpus: 2,
      content: { zero: 0.3, text: 0.5, random: 0.1, duplicate: 0.1 },
      workload: {
        kind: 'phases',
        phases: [
          {
            seconds: 3,
            workload: { kind: 'fork-bursts', pagesPerSec: 3000, burstPages: '4MiB', everySeconds: 0.5 },
          },
          { seconds: 2, workload: { kind: 'uniform', pagesPerSec: 50 } },
        ],
      },
    },
  },
  batch: {
    about: 'a batch job: walks through its data from end to end, over and over',
    file: {
      memory: '512MiB',
      content: { zero: 0.2, text: 0.3, random: 0.45, duplicate: 0.05 },
      workload: { kind: 'sequential', pagesPerSec: 10_000 },
    },
  },
  'memory-hog': {
    about: 'the hard case: writes half of its memory faster than most links carry it',
    file: {
      memory: '512MiB',
      vcpus: 2,
      content: { zero: 0.1, text: 0.2, random: 0.65, duplicate: 0.05 },
      workload: { kind: 'uniform', pagesPerSec: 100_000, region: { first: 0, pages: '256MiB' } },
    },
  },
  moving: {
    about: 'a working set that moves through memory',
    file: {
      memory: '512MiB',
      content: { zero: 0.3, text: 0.4, random: 0.2, duplicate: 0.1 },
      workload: {
        kind: 'moving',
        pagesPerSec: 6000,
        windowPages: '32MiB',
        everySeconds: 1,
        stepPages: '8MiB',
      },
    },
  },
  bursty: {
    about: 'quiet, a burst, quiet',
    file: {
      memory: '512MiB',
      content: { zero: 0.4, text: 0.4, random: 0.15, duplicate: 0.05 },
      workload: {
        kind: 'phases',
        phases: [
          { seconds: 2, workload: { kind: 'uniform', pagesPerSec: 100 } },
          {
            seconds: 1,
            workload: { kind: 'uniform', pagesPerSec: 30_000, region: { first: 0, pages: '128MiB' } },
          },
          { seconds: 2, workload: { kind: 'uniform', pagesPerSec: 100 } },
        ],
      },
    },
  },
  huge: {
    about: '16 GiB, mostly at rest, to see what size alone costs',
    file: {
      memory: '16GiB',
      vcpus: 2,
      content: { zero: 0.75, text: 0.15, random: 0.05, duplicate: 0.05 },
      workload: { kind: 'zipf', pagesPerSec: 2000, exponent: 1 },
    },
  },
};

export const libraryNames: readonly string[] = Object.keys(LIBRARY);

/** Undefined when there is none of this name. */
export function libraryGuest(name: string): GuestFile | undefined {
  const guest = Object.hasOwn(LIBRARY, name) ? LIBRARY[name] : undefined;
  return guest && guestFileSchema.parse({ name, ...(guest.file as object) });
}

/** What a guest of the library stands for, in words. */
export function libraryAbout(name: string): string | undefined {
  return Object.hasOwn(LIBRARY, name) ? LIBRARY[name]?.about : undefined;
}
