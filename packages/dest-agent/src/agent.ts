/** The daemon on the host that a guest enters: takes connections of source agents and gives each its session. */

import { randomBytes } from 'node:crypto';
import { type DestAgentOptions, defaultLimits } from '@vmferry/agent-core/config';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import {
  forgetOld,
  inOrder,
  type MigrationSummary,
  type Operations,
  type RunningMigration,
} from '@vmferry/agent-core/operations';
import { FEATURES, VERSION } from '@vmferry/agent-core/version';
import { wallClockMs } from '@vmferry/agent-core/wall-clock';
import { MigrationError } from '@vmferry/engine/errors';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { rehearsePreflight } from '@vmferry/hypervisor/libvirt/preflight/rehearse';
import { SimulationHost } from '@vmferry/memsim/guest/host';
import { ControlChannel } from '@vmferry/wire/control';
import { type Frame, FrameKind } from '@vmferry/wire/frame';
import type { FrameSocket } from '@vmferry/wire/frame-socket';
import { negotiate, newSession, PROTOCOL_VERSIONS, tokenAccepted } from '@vmferry/wire/handshake';
import { Link } from '@vmferry/wire/link';
import type { Peer } from '@vmferry/wire/listener';
import type { ControlMessage } from '@vmferry/wire/messages';
import { DATA_PATH, MIGRATION_PATH } from '@vmferry/wire/socket';
import { windowUpTo } from '@vmferry/wire/window';
import { type DestGuestFactory, destGuests, endPreparedGuest, lookAtCommittedGuest } from './guests.ts';
import { settleLeftovers } from './leftovers.ts';
import { windUp } from './orderly-end.ts';
import { DestSession } from './session.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
const dataOnly = {
  code: 'E_SEQUENCE',
  message: `only data streams come on ${DATA_PATH}`,
  remedy: `open other streams on ${MIGRATION_PATH}`,
};

/** What an agent is put together from; each part has its default. */
export interface DestAgentParts {
  readonly guests?: DestGuestFactory;
  /** The simulated guests of this host; without it there are none. */
  readonly simulation?: SimulationHost;
}

export class DestAgent implements Operations {
  readonly role = 'dest';
  readonly #options: DestAgentOptions;
  readonly #guests: DestGuestFactory;
  readonly #sessions = new Map<string, DestSession>();
  readonly #links = new Set<Link>();
  #ending: Promise<void> | undefined;
  #abandon: () => void = () => {};
  readonly #abandoned = new Promise<void>((resolve) => {
    this.#abandon = resolve;
  });

  constructor(options: DestAgentOptions, parts: DestAgentParts = {}) {
    this.#options = options;
    this.#guests = parts.guests ?? destGuests(options, parts.simulation ?? new SimulationHost([]));
  }

  migrate(): RunningMigration {
    throw new MigrationError('a destination agent starts no migrations', {
      code: 'E_UNSUPPORTED',
      side: 'dest',
      phase: 'connect',
      guestRunsOn: 'source',
      remedy: 'ask the source agent of that host; `vmferry agent host` is one agent for both roles',
    });
  }

  list(): readonly MigrationSummary[] {
    return inOrder([...this.#sessions.values()].map((session) => session.summary));
  }

  find(id: string): RunningMigration | undefined {
    return this.#sessions.get(id);
  }

  /**
   * Settles what an agent before this one left, where that can be told; of one guest, or of all. Before the first
   * connection.
   */
  async settle(guest?: string): Promise<void> {
    await settleLeftovers({
      ...(guest === undefined ? {} : { guest }),
      stateDir: this.#options.stateDir,
      log: this.#options.log,
      endPrepared: (uri, session) => endPreparedGuest(uri, session, this.#options),
      look: (uri, session) => lookAtCommittedGuest(uri, session, this.#options),
    });
  }

  /** Asks the host's libvirt, where there is one, for what the first preflight would wait for. */
  async rehearse(): Promise<void> {
    const { libvirt } = this.#options;
    await rehearsePreflight(libvirtOptions(libvirt), libvirtPolicy(libvirt));
  }

  /** Handler of '/v1/migration' and '/v1/data'. */
  acceptMigration(socket: FrameSocket, peer: Peer): void {
    let session: DestSession | undefined;
    const link = new Link(socket, {
      name: `stream from ${peer.address}`,
      // A window smaller than a frame lets one through.
      receiveLimitBytes: 2 * Math.max(this.#limits.windowBytes, this.#limits.maxFrameBytes),
      window: windowUpTo(this.#limits.windowBytes),
      onFrame: (frame: Frame, from: Link) => {
        if (frame.kind === FrameKind.opaque) session?.onOpaque(frame, from);
        else session?.onFrame(frame, from);
      },
    });
    this.#links.add(link);
    void link.closed.then(() => this.#links.delete(link));
    const control = new ControlChannel(link);
    control
      .expect(['hello', 'attach'], HANDSHAKE_TIMEOUT_MS)
      .then((message) => {
        session =
          message.type === 'hello'
            ? this.#hello(message, control, peer)
            : this.#attach(message, control, link, peer);
      })
      // What came behind the message may have had the link dropped before its answer.
      .catch((error: unknown) => {
        this.#options.log.warn({ err: error, peer: peer.address }, 'handshake');
        void link.close();
      });
  }

  /**
   * Lets nobody in any more, and gives up what was promised to no source. A guest that was is waited for, in post-copy
   * too: see `orderly-end`.
   */
  close(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  /** `close` waits for nothing any more. */
  abandon(): void {
    this.#abandon();
  }

  async #end(): Promise<void> {
    const sessions = [...this.#sessions.values()];
    for (const { standing, summary } of sessions) {
      const { id: session, guest } = summary;
      if (standing === 'promised')
        this.#options.log.info({ session, guest }, 'the guest is being taken in: the agent ends after that');
    }
    await Promise.race([Promise.all(sessions.map(windUp)), this.#abandoned]);
    await Promise.all([...this.#links].map((link) => link.close()));
  }

  get #limits(): NonNullable<DestAgentOptions['limits']> {
    return this.#options.limits ?? defaultLimits();
  }

  #hello(message: ControlMessage<'hello'>, control: ControlChannel, peer: Peer): DestSession | undefined {
    if (peer.path === DATA_PATH) {
      this.#refuse(control, dataOnly);
      return undefined;
    }
    if (this.#ending) {
      this.#refuse(control, {
        code: 'E_REFUSED',
        message: 'the destination agent was told to end, and takes no more guests in',
        remedy: 'start the migration again when the agent is back',
      });
      return undefined;
    }
    const agreed = negotiate(
      { versions: PROTOCOL_VERSIONS, features: FEATURES },
      { versions: message.versions, features: message.features },
    );
    if (!agreed.ok) {
      this.#refuse(control, agreed.refusal);
      return undefined;
    }
    if (!tokenAccepted(this.#options.token, message.token)) {
      this.#refuse(control, {
        code: 'E_AUTH',
        message: 'the destination agent does not accept the token',
        remedy: 'give both agents the same token file',
      });
      return undefined;
    }
    control.link.keepTo(message.limits);
    const identity = newSession(randomBytes);
    const session = new DestSession({
      identity,
      control,
      peer: peer.address,
      tls: peer.tls,
      stateDir: this.#options.stateDir,
      bufferBytes: this.#limits.bufferBytes,
      guests: this.#guests,
      log: this.#options.log,
    });
    this.#sessions.set(identity.session, session);
    forgetOld(this.#sessions);
    control.send({
      type: 'welcome',
      version: agreed.version,
      features: [...agreed.features],
      agent: VERSION,
      session: identity.session,
      secret: identity.secret,
      limits: { maxFrameBytes: this.#limits.maxFrameBytes, windowBytes: this.#limits.windowBytes },
      wallClockMs: wallClockMs(),
    });
    return session;
  }

  #attach(
    message: ControlMessage<'attach'>,
    control: ControlChannel,
    link: Link,
    peer: Peer,
  ): DestSession | undefined {
    if (peer.path === DATA_PATH && message.stream.role !== 'data') {
      this.#refuse(control, dataOnly);
      return undefined;
    }
    const session = this.#sessions.get(message.session);
    if (session?.expectsTunnel(message)) {
      void session.carry(link, message.stream.role, () =>
        control.send({ type: 'attached', received: link.lastReceived }),
      );
      return session;
    }
    if (!session?.attach(link, message)) {
      this.#refuse(control, {
        code: 'E_AUTH',
        message: 'there is no such session, or the stream does not belong to it',
        remedy: 'start the migration again',
      });
      return undefined;
    }
    control.send({ type: 'attached', received: link.lastReceived });
    return session;
  }

  #refuse(
    control: ControlChannel,
    refusal: {
      readonly code: string;
      readonly message: string;
      readonly remedy: string;
      readonly versions?: readonly [number, number];
    },
  ): void {
    const { code, message, remedy, versions } = refusal;
    control.send({ type: 'refuse', code, message, remedy, ...(versions ? { versions: [...versions] } : {}) });
    void control.link.close();
    this.#options.log.warn({ code }, message);
  }
}
