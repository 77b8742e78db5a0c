/**
 * The demo on real guests. Its guest, its hosts and its client are those of the tests (`test/demo` in a
 * checkout), which no package imports: it is found by its path when it is there.
 */
import { access } from 'node:fs/promises';
import type { Strategy } from '@vmferry/engine/options';
import type { MigrationReport } from '@vmferry/engine/report/report';

/** What a client on the network saw of one move, ms. */
export interface ClientView {
  /** The longest time without a reply, over UDP. */
  readonly udpGapMs: number;
  /** The same on a TCP connection, whose retransmissions come late: up to twice the outage. */
  readonly tcpGapMs: number;
  /** The connection lived on and every request on it was answered. */
  readonly survived: boolean;
}

export interface DemoMove {
  /** As asked for; the report has what was done. */
  readonly strategy: Strategy;
  readonly from: string;
  readonly to: string;
  readonly report: MigrationReport;
  /** Null without a network. */
  readonly client: ClientView | null;
}

export interface DemoResult {
  /** The guest, its hypervisor and the link, in words. */
  readonly setting: readonly string[];
  readonly moves: readonly DemoMove[];
  /** What was found when the guest was examined at the end, in words. */
  readonly verdict: { readonly sound: boolean; readonly words: string };
}

export interface QemuDemoOptions {
  /** Told what is being done, a line at a time, without a line break. */
  say(line: string): void;
  /** Ends it early: everything is taken down and the promise rejects. */
  readonly signal: AbortSignal;
}

/** What `test/demo/main.ts` exports. */
export interface QemuDemo {
  runQemuDemo(options: QemuDemoOptions): Promise<DemoResult>;
}

/** From the sources as from `dist`. */
const CHECKOUT = new URL('../../../../test/dist/demo/main.js', import.meta.url);

/** Undefined where there is no checkout, or it is not built. */
export async function findQemuDemo(place: URL = CHECKOUT): Promise<QemuDemo | undefined> {
  try {
    await access(place);
  } catch {
    return undefined;
  }
  return (await import(place.href)) as QemuDemo;
}
