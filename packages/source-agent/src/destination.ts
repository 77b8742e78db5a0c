/** The destination agent as the source sees it: one control, several data and one express stream. */
import { type AgentLimits, defaultLimits, type SourceAgentOptions } from '@vmferry/agent-core/config';
import type { Logger } from '@vmferry/agent-core/log';
import { FEATURES, VERSION } from '@vmferry/agent-core/version';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { ClockOffset } from '@vmferry/engine/clock/offset';
import { GuestError } from '@vmferry/engine/errors';
import type { GuestDescription, SideConnection } from '@vmferry/engine/guest';
import type { MigrateRequest } from '@vmferry/engine/options';
import { millis } from '@vmferry/engine/units';
import { ControlChannel } from '@vmferry/wire/control';
import { type Frame, HEADER_BYTES } from '@vmferry/wire/frame';
import { PROTOCOL_VERSIONS } from '@vmferry/wire/handshake';
import { Link } from '@vmferry/wire/link';
import { type ControlMessage, MAX_STREAMS } from '@vmferry/wire/messages';
import { MAX_PACKED_BYTES } from '@vmferry/wire/packed';
import { RateLimiter } from '@vmferry/wire/rate-limiter';
import { connect, connectData, MIGRATION_PATH, type TlsMaterial } from '@vmferry/wire/socket';
import { Tunnel } from '@vmferry/wire/tunnel';
import { windowUpTo } from '@vmferry/wire/window';
import { knownCode } from './failures.ts';

const ANSWER_TIMEOUT_MS = 10_000;
/** A destination may have to start a hypervisor first. */
const OPEN_TIMEOUT_MS = 60_000;
const CLOCK_SAMPLES = 8;
/** A destination answers data with acknowledgements and control messages only. */
const ANSWER_BYTES = HEADER_BYTES + MAX_PACKED_BYTES;

export interface DestinationOptions {
  readonly url: string;
  readonly tls?: TlsMaterial;
  readonly token?: string;
  readonly insecure: boolean;
  readonly limits: AgentLimits;
  /** Bytes per second of all streams together; 0 is no limit. */
  readonly maxBandwidth: number;
}

/** The one that a request names, as this agent reaches it. */
export function destinationOf(request: MigrateRequest, agent: SourceAgentOptions): DestinationOptions {
  return {
    url: request.to,
    insecure: agent.insecure || request.insecure,
    limits: agent.limits ?? defaultLimits(),
    maxBandwidth: request.maxBandwidth,
    ...(agent.tls ? { tls: agent.tls } : {}),
    ...(agent.token === undefined ? {} : { token: agent.token }),
  };
}

export type OpenAnswer =
  | { readonly ok: true; readonly hypervisorVersion: string; readonly notes: readonly string[] }
  | { readonly ok: false; readonly reasons: readonly GuestError[]; readonly notes: readonly string[] };

export class Destination {
  readonly control: ControlChannel;
  readonly session: string;
  readonly clock = new ClockOffset();
  readonly tls: boolean;
  /** What both sides can do. */
  readonly features: readonly string[];
  /** The largest frame that both sides take. */
  readonly maxFrameBytes: number;
  #data: readonly Link[] = [];
  #express: Link | undefined;
  /** Data and express, those among them that are still being attached. */
  readonly #streams = new Set<Link>();
  #closed = false;
  readonly #secret: Uint8Array;
  readonly #options: DestinationOptions;
  readonly #limiter: RateLimiter;
  readonly #peerLimits: ControlMessage<'welcome'>['limits'];
  /** Links of connections that are carried verbatim. */
  readonly #side = new Set<Link>();
  #tunnels = 0;

  /** Rejects with `WireError` or `PeerError`. */
  static async connect(options: DestinationOptions): Promise<Destination> {
    const control = new ControlChannel(await openLink(options, 'control', false));
    try {
      const welcome = await control.request(
        {
          type: 'hello',
          versions: [...PROTOCOL_VERSIONS],
          features: [...FEATURES],
          agent: VERSION,
          role: 'control',
          limits: { maxFrameBytes: options.limits.maxFrameBytes, windowBytes: options.limits.windowBytes },
          ...(options.token === undefined ? {} : { token: options.token }),
        },
        'welcome',
        ANSWER_TIMEOUT_MS,
      );
      return new Destination(control, welcome, options);
    } catch (error) {
      void control.link.close();
      throw error;
    }
  }

  private constructor(
    control: ControlChannel,
    welcome: ControlMessage<'welcome'>,
    options: DestinationOptions,
  ) {
    this.control = control;
    this.session = welcome.session;
    this.features = welcome.features;
    this.#secret = welcome.secret;
    this.#options = options;
    this.#limiter = new RateLimiter(options.maxBandwidth);
    this.maxFrameBytes = Math.min(options.limits.maxFrameBytes, welcome.limits.maxFrameBytes);
    this.#peerLimits = welcome.limits;
    control.link.keepTo(welcome.limits);
    this.tls = options.url.startsWith('wss:');
  }

  get data(): readonly Link[] {
    return this.#data;
  }

  get express(): Link {
    if (!this.#express) throw new Error('the streams are not open');
    return this.#express;
  }

  /** Resolves with the reason when any of the streams is gone. */
  get broken(): Promise<string> {
    return Promise.race(
      [this.control.link, this.express, ...this.#data].map((link) =>
        link.closed.then(({ error }) => error?.message ?? 'the destination agent closed the connection'),
      ),
    );
  }

  async open(description: GuestDescription, request: MigrateRequest, postcopy: boolean): Promise<OpenAnswer> {
    if (description.libvirt && !this.features.includes('tunnel-2'))
      return { ok: false, reasons: [tooOld()], notes: [] };
    const answer = await this.control.request(
      {
        type: 'open',
        guest: JSON.parse(JSON.stringify(description)),
        // How the source reaches its libvirt is nothing to the destination.
        destGuest: request.destGuest ?? request.guest.replace(/^(libvirt:.+)\?connect=.*$/, '$1'),
        request: {
          announceIps: request.announceIps,
          copyStorage: request.copyStorage ?? 'none',
          resume: request.resume ?? false,
        },
        plan: { postcopy },
        streams: request.streams,
      },
      ['accepted', 'rejected'],
      OPEN_TIMEOUT_MS,
    );
    if (answer.type === 'accepted') {
      return { ok: true, hypervisorVersion: answer.hypervisorVersion, notes: answer.notes };
    }
    const reasons = answer.reasons.map(
      ({ code, message, remedy }) => new GuestError(knownCode(code), message, remedy),
    );
    return { ok: false, reasons, notes: answer.notes ?? [] };
  }

  /** Opens the data streams and the express stream. */
  async attach(streams: number): Promise<void> {
    const roles = [
      ...Array.from({ length: streams }, (_, index) => ({ role: 'data' as const, index })),
      { role: 'express' as const, index: 0 },
    ];
    const links = await Promise.all(roles.map((stream) => this.#attachOne(stream)));
    this.#express = links.pop();
    this.#data = links;
  }

  /** To be called when nothing else is asked of either agent: what waits in a queue is no measure of a clock. */
  async compareClocks(): Promise<void> {
    for (let sample = 0; sample < CLOCK_SAMPLES; sample += 1) await this.readClock();
  }

  async #attachOne(stream: { role: 'data' | 'express'; index: number }): Promise<Link> {
    const name = `${stream.role} ${stream.index}`;
    const link = await openLink(this.#options, name, stream.role === 'data', this.#limiter);
    this.#streams.add(link);
    if (this.#closed) await link.close();
    link.keepTo(this.#peerLimits);
    const channel = new ControlChannel(link);
    await channel.request(
      { type: 'attach', session: this.session, secret: this.#secret, stream, received: 0 },
      'attached',
      ANSWER_TIMEOUT_MS,
    );
    return link;
  }

  /** Whatever becomes of each, the guest's driver and the hypervisors at their ends tell what it means. */
  async carryAll(connections: AsyncIterable<SideConnection> | undefined, log: Logger): Promise<void> {
    for await (const connection of connections ?? []) {
      this.#carry(connection).catch((error: unknown) =>
        log.warn({ err: error, kind: connection.kind }, 'tunnel'),
      );
    }
  }

  /**
   * Carries a connection of the hypervisor's to its like on the destination, on a stream of its own. Resolves when both
   * are over. Rejects where the destination cannot take it.
   */
  async #carry({ kind, stream }: SideConnection): Promise<void> {
    const index = this.#tunnels;
    this.#tunnels += 1;
    // Disks share the bandwidth that the operator allows; libvirt's calls must not wait for it.
    const limiter = kind === 'rpc' ? undefined : this.#limiter;
    const early: Frame[] = [];
    let tunnel: Tunnel | undefined;
    const link = await openLink(this.#options, `${kind} ${index}`, false, limiter, (frame) => {
      if (tunnel) tunnel.onFrame(frame);
      else early.push(frame);
    });
    this.#side.add(link);
    try {
      const channel = new ControlChannel(link);
      await channel.request(
        {
          type: 'attach',
          session: this.session,
          secret: this.#secret,
          stream: { role: kind, index: index % MAX_STREAMS },
          received: 0,
        },
        'attached',
        ANSWER_TIMEOUT_MS,
      );
      tunnel = new Tunnel(link, stream);
      for (const frame of early) tunnel.onFrame(frame);
      await tunnel.ended;
    } finally {
      this.#side.delete(link);
      stream.destroy();
      void link.close();
    }
  }

  async readClock(): Promise<void> {
    const reply = await this.control.request(
      { type: 'clock', t0: wallClockMs() },
      'clock-reply',
      ANSWER_TIMEOUT_MS,
    );
    this.clock.add({
      t0: millis(reply.t0),
      t1: millis(reply.t1),
      t2: millis(reply.t2),
      t3: millis(wallClockMs()),
    });
  }

  async start(): Promise<void> {
    await this.control.request({ type: 'start' }, 'started', OPEN_TIMEOUT_MS);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const links = [this.control.link, ...this.#streams, ...this.#side];
    await Promise.all(links.map((link) => link.close()));
  }
}

function tooOld(): GuestError {
  return new GuestError(
    'E_VERSION',
    'the destination agent takes no guests of libvirt: it lacks the feature "tunnel-2"',
    'update the destination agent',
  );
}

/** @param bulk whether what goes there is much: data streams have a path of their own, and lanes */
async function openLink(
  options: DestinationOptions,
  name: string,
  bulk: boolean,
  rateLimiter?: RateLimiter,
  onFrame: (frame: Frame, link: Link) => void = (frame, link) => link.consumed(frame),
): Promise<Link> {
  const how = { insecure: options.insecure, ...(options.tls ? { tls: options.tls } : {}) };
  const socket = bulk
    ? await connectData(options.url, { ...how, maxMessageBytes: ANSWER_BYTES })
    : await connect(options.url, { ...how, path: MIGRATION_PATH });
  return new Link(socket, {
    name,
    window: windowUpTo(options.limits.windowBytes),
    ...(rateLimiter ? { rateLimiter } : {}),
    onFrame,
  });
}
