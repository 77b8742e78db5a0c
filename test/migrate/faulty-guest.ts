/** A destination guest that stops at one of its steps until the test has done there what it wants to do. */
import type { DestGuestFactory } from '@vmferry/dest-agent/guests';
import type { DestGuest } from '@vmferry/engine/guest';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';

/** `ready`: the guest was sent, and READY was not. `run`: the source has committed, and nothing runs. */
type Step = 'ready' | 'run';

export class Gate {
  /** Resolves when the step is due. */
  readonly reached: Promise<void>;
  readonly guests: DestGuestFactory;
  #reach: () => void = () => {};
  #open: (error?: Error) => void = () => {};

  constructor(step: Step) {
    this.reached = new Promise((resolve) => {
      this.#reach = resolve;
    });
    const opened = new Promise<void>((resolve, reject) => {
      this.#open = (error) => (error ? reject(error) : resolve());
    });
    opened.catch(() => {});
    this.guests = async (uri) => {
      const guest = await QemuDestGuest.connect(uri.replace(/^qemu:/, ''));
      const gated = async (): Promise<void> => {
        this.#reach();
        await opened;
      };
      return new Proxy<DestGuest>(guest, {
        get(target, key) {
          const member: unknown = Reflect.get(target, key, target);
          if (typeof member !== 'function') return member;
          if (key !== step) return member.bind(target);
          return async (...args: unknown[]) => {
            await gated();
            return await member.apply(target, args);
          };
        },
      });
    };
  }

  /** The step goes on, or fails. */
  open(error?: Error): void {
    this.#open(error);
  }
}
