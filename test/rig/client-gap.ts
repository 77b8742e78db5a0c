import { ManagedProcess, within } from './process.ts';
import { testFile } from './repo.ts';

export interface Gap {
  /** The longest time between two replies, ms. */
  readonly ms: number;
  /** When it began, milliseconds since 1970. */
  readonly startedAtMs: number;
}

export interface ProbeResult {
  /**
   * What a client on one TCP connection saw after `mark`. A retransmission that comes late makes it up to twice
   * the outage (TCP backs off exponentially).
   */
  readonly tcpGap: Gap;
  /** The same over UDP, without that: right to within some 5 ms. */
  readonly udpGap: Gap;
  /** The longest gaps before `mark`: the noise of the machine, ms. */
  readonly quietTcpGapMs: number;
  readonly quietUdpGapMs: number;
  /** The connection lived on, and every request on it was answered. */
  readonly survived: boolean;
  /** Why the connection ended, if it did. */
  readonly tcpError: string | null;
  /** Requests without a reply. */
  readonly tcpMissed: number;
  readonly udpMissed: number;
  /** Places where the guest's own count of requests did not go on by one: 0 for one guest that lost nothing. */
  readonly counterJumps: number;
  readonly requests: number;
}

interface Raw {
  readonly sent: number;
  readonly replies: readonly (readonly [sequence: number, atMs: number, counter: number])[];
}

/** A client that asks the guest every 5 ms, over one TCP connection and over UDP. */
export class ClientProbe {
  readonly #process: ManagedProcess;
  #output = '';
  #markedAtMs: number | undefined;

  private constructor(process: ManagedProcess) {
    this.#process = process;
    process.child.stdout.setEncoding('utf8');
    process.child.stdout.on('data', (text: string) => {
      this.#output += text;
    });
  }

  /** Resolves when both have had a reply. */
  static async start(namespace: string, address: string): Promise<ClientProbe> {
    const argv = [process.execPath, testFile('rig/client-probe.mjs'), address, '5'];
    const child = new ManagedProcess(argv, { namespace, nice: -10 });
    const probe = new ClientProbe(child);
    const up = new Promise<void>((resolve) => child.child.stdout.once('data', () => resolve()));
    const died = child.exited.then(() => Promise.reject(new Error(`client probe ended: ${child.stderr}`)));
    died.catch(() => {});
    try {
      await within(15_000, () => `no reply from ${address}`, Promise.race([up, died]));
    } catch (error) {
      child.kill();
      throw error;
    }
    return probe;
  }

  /** From here on gaps count; what was before is the quiet. Call it when the migration starts. */
  mark(): void {
    this.#markedAtMs = performance.timeOrigin + performance.now();
  }

  /** Stops asking, waits for the replies on their way (at most 3 s) and says what the client saw. */
  async finish(): Promise<ProbeResult> {
    this.#process.child.stdin.end();
    await within(10_000, () => 'end of the client probe', this.#process.exited);
    const line = this.#output.split('\n').find((text) => text.startsWith('{'));
    if (line === undefined) throw new Error(`client probe said nothing: ${this.#process.stderr}`);
    const { tcp, udp } = JSON.parse(line) as { tcp: Raw & { error: string | null }; udp: Raw };
    const mark = this.#markedAtMs ?? 0;
    const counterJumps = tcp.replies.filter(([, , count], i) => count !== i + 1).length;
    return {
      tcpGap: longest(tcp, (end) => end >= mark),
      udpGap: longest(udp, (end) => end >= mark),
      quietTcpGapMs: longest(tcp, (end) => end < mark).ms,
      quietUdpGapMs: longest(udp, (end) => end < mark).ms,
      survived: tcp.error === null && tcp.replies.length === tcp.sent,
      tcpError: tcp.error,
      tcpMissed: tcp.sent - tcp.replies.length,
      udpMissed: udp.sent - new Set(udp.replies.map(([sequence]) => sequence)).size,
      counterJumps,
      requests: tcp.sent,
    };
  }

  async stop(): Promise<void> {
    await this.#process.stop(500);
  }
}

function longest({ replies }: Raw, counts: (endMs: number) => boolean): Gap {
  let gap: Gap = { ms: 0, startedAtMs: 0 };
  for (const [i, [, atMs]] of replies.entries()) {
    const before = replies[i - 1]?.[1];
    if (before === undefined || !counts(atMs)) continue;
    if (atMs - before > gap.ms) gap = { ms: atMs - before, startedAtMs: before };
  }
  return gap;
}
