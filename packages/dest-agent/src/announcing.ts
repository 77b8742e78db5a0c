/** Tells the network where the guest is now: prepared while pages still travel, sent in the instant it runs. */
import type { Nic } from '@vmferry/engine/guest';
import { type Announcement, Announcer } from '@vmferry/hypervisor/announce/announcer';
import { portIsHeld, refreshFdb } from '@vmferry/hypervisor/announce/interfaces';
import { type AnnouncePlan, planAnnouncement } from '@vmferry/hypervisor/announce/plan';
import { roundDelays } from '@vmferry/hypervisor/announce/schedule';
import { runTool } from '@vmferry/hypervisor/announce/tools';
import { openPacketSocket } from '@vmferry/native/packet-socket';

export interface AnnounceResult {
  readonly frames: number;
  readonly interfaces: readonly string[];
  readonly notes: readonly string[];
  /** Further rounds follow. */
  readonly underWay: boolean;
}

export const NOT_ANNOUNCED: AnnounceResult = { frames: 0, interfaces: [], notes: [], underWay: false };

export class Announcing {
  readonly #announcer = new Announcer({
    openSocket: openPacketSocket,
    delays: roundDelays(),
    refreshFdb: (mac, entry) => refreshFdb(runTool, mac, entry),
    portIsHeld,
  });
  readonly #plan: Promise<AnnouncePlan>;
  #begun: { readonly plan: AnnouncePlan; readonly announcement: Announcement } | undefined;
  #result: AnnounceResult | undefined;

  constructor(options: {
    readonly nics: readonly Nic[];
    readonly places: readonly Nic[];
    readonly ips: readonly string[];
  }) {
    this.#plan = planAnnouncement({
      nics: options.nics,
      places: options.places,
      explicit: options.ips,
      run: runTool,
    }).then((plan) => {
      this.#announcer.prepare(plan.targets);
      return plan;
    });
    this.#plan.catch(() => {});
  }

  /** What was sent until now; once all of it was, that. */
  get soFar(): AnnounceResult {
    if (this.#result) return this.#result;
    if (!this.#begun) return { ...NOT_ANNOUNCED, underWay: true };
    const { announcement, plan } = this.#begun;
    const { frames, interfaces, notes } = announcement.soFar();
    return { frames, interfaces, notes: [...plan.notes, ...notes], underWay: !announcement.over };
  }

  /** Sends the first round and resolves then. Never rejects: an announcement is best effort. */
  async begin(): Promise<void> {
    try {
      const plan = await this.#plan;
      this.#begun = { plan, announcement: this.#announcer.announce(plan.targets) };
      await this.#begun.announcement.firstRound;
    } catch (error) {
      const notes = [`the guest could not be announced: ${String(error)}`];
      this.#result = { ...NOT_ANNOUNCED, notes };
      this.#announcer.close();
    }
  }

  /** Gives what was sent when the last round was; to be called after `begin` has resolved. Never rejects. */
  async end(): Promise<AnnounceResult> {
    if (this.#begun && !this.#result) {
      const { announcement, plan } = this.#begun;
      const { frames, interfaces, notes } = await announcement.done;
      this.#result = { frames, interfaces, notes: [...plan.notes, ...notes], underWay: false };
      this.#announcer.close();
    }
    return this.soFar;
  }

  close(): void {
    this.#announcer.close();
  }
}
