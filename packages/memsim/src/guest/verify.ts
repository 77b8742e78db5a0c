/**
 * Is a guest's memory what its workload must have produced? All is told again from the seed and from how many
 * accesses each vCPU has done; nothing is taken from what is to be checked. A page that was written once more or
 * once less than it should is wrong for ever, as each write only adds to it.
 */
import { type GuestDefinition, streamsOf } from '../workload/streams.ts';
import { Content, type GuestState, positionOf } from './shared.ts';
import { chained } from './vcpu.ts';

/** Accesses that can be told again in any reasonable time: some hours. */
const MAX_ACCESSES = 2 ** 40;
/** Pages that are told by their numbers. */
const NAMED = 8;

export type PageFault =
  | { readonly page: number; readonly what: 'never received' }
  | { readonly page: number; readonly what: 'bytes that are not its own' }
  | { readonly page: number; readonly what: 'generation'; readonly found: number; readonly expected: number };

export interface Findings {
  readonly pages: number;
  readonly writes: number;
  readonly reads: number;
  readonly wrongPages: number;
  /** The first of them. */
  readonly examples: readonly PageFault[];
  /** What is wrong with the vCPUs, in words. */
  readonly vcpus: readonly string[];
}

/** The guest must stand still. */
export function verifyMemory(definition: GuestDefinition, state: GuestState): Findings {
  const { generations, positions, chains, buffers } = state;
  const { pages, vcpus } = buffers;
  const expected = new Uint32Array(pages);
  const faults: string[] = [];
  let writes = 0;
  let reads = 0;
  const streams = streamsOf(definition);
  for (const [which, stream] of streams.entries()) {
    for (let vcpu = 0; vcpu < vcpus; vcpu += 1) {
      const done = positions[positionOf(buffers, vcpu) + 1 + which]!;
      if (!Number.isSafeInteger(done) || done < 0 || done > MAX_ACCESSES) {
        faults.push(`vCPU ${vcpu} is nowhere in its workload (access ${done})`);
        continue;
      }
      let chain = 0;
      for (let access = 0; access < done; access += 1) {
        const n = access * vcpus + vcpu;
        const page = stream.page(n);
        chain = chained(chain, page, n);
        if (stream.access === 'write') expected[page] = expected[page]! + 1;
      }
      if (stream.access === 'write') writes += done;
      else reads += done;
      if (chain !== chains[vcpu * streams.length + which]) {
        faults.push(`vCPU ${vcpu} did not do the ${done} accesses that it says it did`);
      }
    }
  }
  let wrongPages = 0;
  const examples: PageFault[] = [];
  for (let page = 0; page < pages; page += 1) {
    const found = generations[page]!;
    if (found === expected[page]) continue;
    wrongPages += 1;
    if (examples.length < NAMED) examples.push(faultOf(page, found, expected[page]!));
  }
  return { pages, writes, reads, wrongPages, examples, vcpus: faults };
}

function faultOf(page: number, found: number, expected: number): PageFault {
  if (found === Content.absent) return { page, what: 'never received' };
  if (found === Content.foreign) return { page, what: 'bytes that are not its own' };
  return { page, what: 'generation', found, expected };
}

/** "page 7 lacks 1 write (it has 3 of 4)" */
export function describeFault(fault: PageFault): string {
  if (fault.what === 'never received') return `page ${fault.page} was never received`;
  if (fault.what !== 'generation') return `page ${fault.page} has ${fault.what}`;
  const { page, found, expected } = fault;
  const writes = (n: number): string => `${n} ${n === 1 ? 'write' : 'writes'}`;
  return found < expected
    ? `page ${page} lacks ${writes(expected - found)} of ${expected}`
    : `page ${page} has ${writes(found - expected)} more than ${expected}`;
}
