/** Tells the network where the guest is now: prepared while pages still travel, sent in the instant it runs. */
import type { Nic } from '@vmferry/engine/guest';
import { Announcer } from '@vmferry/hypervisor/announce/announcer';
import { refreshFdb } from '@vmferry/hypervisor/announce/interfaces';
import { type AnnouncePlan, planAnnouncement } from '@vmferry/hypervisor/announce/plan';
import { roundDelays } from '@vmferry/hypervisor/announce/schedule';
import { runTool } from '@vmferry/hypervisor/announce/tools';
import { openPacketSocket } from '@vmferry/native/packet-socket';

export interface AnnounceResult {
  readonly frames: number;
  readonly interfaces: string[];
  readonly notes: readonly string[];
}

export class Announcing {
  readonly #announcer = new Announcer({
    openSocket: openPacketSocket,
    delays: roundDelays(),
    refreshFdb: (mac, entry) => refreshFdb(runTool, mac, entry),
  });
  readonly #plan: Promise<AnnouncePlan>;

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

  /** Sends the first round at once; resolves after the last. Never rejects: an announcement is best effort. */
  async announce(): Promise<AnnounceResult> {
    try {
      const plan = await this.#plan;
      const { frames, interfaces, notes } = await this.#announcer.announce(plan.targets).done;
      return { frames, interfaces: [...interfaces], notes: [...plan.notes, ...notes] };
    } catch (error) {
      return { frames: 0, interfaces: [], notes: [`the guest could not be announced: ${String(error)}`] };
    } finally {
      this.#announcer.close();
    }
  }

  close(): void {
    this.#announcer.close();
  }
}
