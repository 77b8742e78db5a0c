/** Verifies one guest and ends. Of its own thread: millions of accesses are told again. */
import { parentPort, workerData } from 'node:worker_threads';
import type { GuestDefinition } from '../workload/streams.ts';
import { type SharedBuffers, viewState } from './shared.ts';
import { type Findings, verifyMemory } from './verify.ts';

export interface VerifyThreadData {
  readonly definition: GuestDefinition;
  readonly buffers: SharedBuffers;
}

const { definition, buffers } = workerData as VerifyThreadData;
const findings: Findings = verifyMemory(definition, viewState(buffers));
parentPort!.postMessage(findings);
