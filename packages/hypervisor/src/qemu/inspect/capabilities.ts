/**
 * QEMU's migration capabilities and parameters belong to the operator: vmferry borrows them. What it changes
 * is remembered as it was before and put back when the migration is over.
 */
import { isDeepStrictEqual } from 'node:util';
import { GuestError } from '@vmferry/engine/errors';
import { z } from 'zod';
import { asGuestError, isRefusal } from '../qmp/errors.ts';
import { capabilitiesReply, parametersReply, type QmpExecutor, typed } from '../qmp/schema.ts';

export type ParameterValue = string | number | boolean | null;
export type Parameters = Readonly<Record<string, ParameterValue>>;

export interface WantedSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Parameters;
  /** Names without which there is no migration. Others are passed over by a QEMU that lacks them. */
  readonly required: readonly string[];
}

/** All of them, as they were at some time. */
export const settingsSchema = z.object({
  capabilities: z.record(z.string(), z.boolean()),
  parameters: z.record(z.string(), z.unknown()),
});
export type Settings = z.infer<typeof settingsSchema>;

type Change<T> = readonly (readonly [name: string, value: T])[];

/** Whatever gives the stream another form than the codec reads, or runs the migration by other rules. */
const off = [
  'auto-converge',
  'background-snapshot',
  'block',
  'compress',
  'dirty-bitmaps',
  'dirty-limit',
  'mapped-ram',
  'multifd',
  'pause-before-switchover',
  'postcopy-preempt',
  'rdma-pin-all',
  'release-ram',
  'return-path',
  'switchover-ack',
  'validate-uuid',
  'x-colo',
  'x-ignore-shared',
  'xbzrle',
  'zero-blocks',
  'zero-copy-send',
];

const common = (postcopy: boolean): WantedSettings => ({
  capabilities: {
    ...Object.fromEntries(off.map((name) => [name, false])),
    events: true,
    'postcopy-ram': postcopy,
  },
  parameters: {
    // The stream goes to the agent beside QEMU, which has TLS of its own.
    'tls-creds': '',
    'tls-hostname': '',
    mode: 'normal',
    // From QEMU 8.2 on: what an operator believes of the link would decide when QEMU switches over.
    'avail-switchover-bandwidth': 0,
    // From QEMU 9.0 on: with "none" pages of zeroes would leave QEMU as any other; "multifd" means multifd's threads.
    'zero-page-detection': 'legacy',
  },
  required: postcopy ? ['events', 'postcopy-ram'] : ['events'],
});

/** What the source's QEMU must be set to; `throttle`: it may be told later to slow the guest down. */
export function sourceSettings(postcopy: boolean, throttle = false): WantedSettings {
  const wanted = common(postcopy);
  return throttle ? merged(wanted, THROTTLE) : wanted;
}

/**
 * QEMU's only throttle is its auto-converge, and that cannot be turned on later: it is on from the start, bound to a
 * hundredth, which no guest notices, until a step is asked for.
 */
const THROTTLE: WantedSettings = {
  capabilities: { 'auto-converge': true },
  parameters: { 'cpu-throttle-initial': 1, 'cpu-throttle-increment': 1, 'max-cpu-throttle': 1 },
  required: ['auto-converge', 'cpu-throttle-initial', 'cpu-throttle-increment', 'max-cpu-throttle'],
};

/** Both; of what is in both, the second's. */
export function merged(first: WantedSettings, second: WantedSettings): WantedSettings {
  return {
    capabilities: { ...first.capabilities, ...second.capabilities },
    parameters: { ...first.parameters, ...second.parameters },
    required: [...first.required, ...second.required],
  };
}

/** What the destination's QEMU must be set to, before `migrate-incoming`. */
export function destSettings(postcopy: boolean): WantedSettings {
  const { capabilities, parameters, required } = common(postcopy);
  // Disks stay with the source until the guest runs here.
  return { capabilities: { ...capabilities, 'late-block-activate': true }, parameters, required };
}

export class MigrationSettings {
  readonly #client: QmpExecutor;
  /** As they were before vmferry's first change. */
  readonly #capabilities = new Map<string, boolean>();
  readonly #parameters = new Map<string, unknown>();

  constructor(client: QmpExecutor) {
    this.#client = client;
  }

  async readCapabilities(): Promise<ReadonlyMap<string, boolean>> {
    const reply = await this.#asking(() =>
      typed(this.#client, 'query-migrate-capabilities', capabilitiesReply),
    );
    return new Map(reply.map(({ capability, state }) => [capability, state]));
  }

  async readParameters(): Promise<ReadonlyMap<string, unknown>> {
    const reply = await this.#asking(() => typed(this.#client, 'query-migrate-parameters', parametersReply));
    return new Map(Object.entries(reply));
  }

  async read(): Promise<Settings> {
    const [capabilities, parameters] = await Promise.all([this.readCapabilities(), this.readParameters()]);
    return {
      capabilities: Object.fromEntries(capabilities),
      parameters: Object.fromEntries(parameters),
    };
  }

  /** Sets everything as `read` found it, in another process perhaps. */
  async putBack(before: Settings): Promise<void> {
    const { capabilities, parameters } = await this.read();
    const set = Object.entries(before.parameters).filter(
      ([name, value]) => Object.hasOwn(parameters, name) && !isDeepStrictEqual(parameters[name], value),
    );
    const change = Object.entries(before.capabilities).filter(
      ([name, state]) => Object.hasOwn(capabilities, name) && capabilities[name] !== state,
    );
    await this.#sendParameters(set);
    await this.#sendCapabilities(change);
  }

  /**
   * Sets what is wanted and is not so yet. QEMU takes capabilities only while no migration is under way. After
   * a failure `restore` puts back what was changed until then. `found`: what `read` gave just now.
   *
   * @throws GuestError E_UNSUPPORTED, E_NO_USERFAULTFD, E_GUEST_BUSY
   */
  async apply(wanted: WantedSettings, found?: Settings): Promise<void> {
    const before = found ?? (await this.read());
    const capabilities = new Map(Object.entries(before.capabilities));
    const parameters = new Map(Object.entries(before.parameters));
    const missing = wanted.required.filter((name) => !capabilities.has(name) && !parameters.has(name));
    if (missing.length > 0) throw unsupported(missing);
    const change = Object.entries(wanted.capabilities).filter(
      ([name, state]) => capabilities.has(name) && capabilities.get(name) !== state,
    );
    await this.#changeCapabilities(change, capabilities);
    const set = Object.entries(wanted.parameters).filter(
      ([name, value]) => parameters.has(name) && parameters.get(name) !== value,
    );
    await this.#changeParameters(set, parameters);
  }

  /**
   * Sets parameters, at any time. Fractions are rounded, since QEMU takes whole numbers only.
   *
   * @throws GuestError E_UNSUPPORTED if this QEMU lacks one.
   */
  async setParameters(wanted: Parameters): Promise<void> {
    const names = Object.keys(wanted);
    // Those that were set before need no second look.
    const known = names.every((name) => this.#parameters.has(name))
      ? this.#parameters
      : await this.readParameters();
    const missing = names.filter((name) => !known.has(name));
    if (missing.length > 0) throw unsupported(missing);
    await this.#changeParameters(Object.entries(wanted), known);
  }

  /** Puts everything back as it was before the first change. Safe to call again. */
  async restore(): Promise<void> {
    const capabilities = [...this.#capabilities];
    const parameters = [...this.#parameters];
    // Parameters first: they can be set at any time, and a throttle is let go of soon.
    await this.#send('migrate-set-parameters', parameters, () =>
      Object.fromEntries(parameters.map(settable)),
    );
    this.#parameters.clear();
    await this.#sendCapabilities(capabilities);
    this.#capabilities.clear();
  }

  #changeCapabilities(change: Change<boolean>, before: ReadonlyMap<string, boolean>): Promise<void> {
    remember(this.#capabilities, change, before);
    return this.#sendCapabilities(change);
  }

  #changeParameters(change: Change<unknown>, before: ReadonlyMap<string, unknown>): Promise<void> {
    remember(this.#parameters, change, before);
    return this.#sendParameters(change);
  }

  #sendParameters(change: Change<unknown>): Promise<void> {
    return this.#send('migrate-set-parameters', change, () => Object.fromEntries(change.map(settable)));
  }

  /** In one command: QEMU checks the outcome as a whole, so that no order of single ones is needed. */
  #sendCapabilities(change: Change<boolean>): Promise<void> {
    return this.#send('migrate-set-capabilities', change, () => ({
      capabilities: change.map(([capability, state]) => ({ capability, state })),
    }));
  }

  async #send(
    command: string,
    change: Change<unknown>,
    args: () => Readonly<Record<string, unknown>>,
  ): Promise<void> {
    if (change.length === 0) return;
    const postcopy = change.some(([name, value]) => name === 'postcopy-ram' && value === true);
    await this.#asking(() => this.#client.execute(command, args()), postcopy);
  }

  async #asking<T>(work: () => Promise<T>, postcopy = false): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw explain(error, postcopy);
    }
  }
}

/** Called before anything is sent: an answer that got lost does not say that nothing changed. */
function remember<T>(first: Map<string, T>, change: Change<T>, before: ReadonlyMap<string, T>): void {
  for (const [name] of change) {
    if (!first.has(name) && before.has(name)) first.set(name, before.get(name) as T);
  }
}

/** QEMU's numbers go up to 2^64; those that JavaScript cannot hold all mean "no limit". */
function settable([name, value]: readonly [string, unknown]): readonly [string, unknown] {
  if (typeof value !== 'number') return [name, value];
  return [name, Math.min(Math.round(value), Number.MAX_SAFE_INTEGER)];
}

function unsupported(missing: readonly string[]): GuestError {
  return new GuestError(
    'E_UNSUPPORTED',
    `this QEMU has no migration setting ${missing.join(', ')}`,
    'Use a QEMU of version 6 or newer, or a strategy that does without.',
  );
}

function explain(error: unknown, postcopy: boolean): unknown {
  if (!isRefusal(error)) return asGuestError(error);
  const options = { cause: error };
  // QEMU says why only in its log, before version 8.1.
  if (postcopy && /postcopy is not supported|userfault/i.test(error.message)) {
    return new GuestError(
      'E_NO_USERFAULTFD',
      `QEMU cannot take a guest in by post-copy on this host: ${error.message}`,
      "Run QEMU as root, set vm.unprivileged_userfaultfd=1, or (QEMU 8 and newer) let QEMU's user open /dev/userfaultfd; QEMU's log has the details.",
      options,
    );
  }
  if (/migration.* in progress/i.test(error.message)) {
    const remedy = 'Wait for the migration to end, or cancel it with migrate_cancel.';
    return new GuestError('E_GUEST_BUSY', error.message, remedy, options);
  }
  return asGuestError(error);
}
