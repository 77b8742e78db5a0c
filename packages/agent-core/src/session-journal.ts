/** What one side of a migration writes into its journal: the engine's records, in its session's file. */
import { encodeRecord, type JournalRecord } from '@vmferry/engine/journal/records';
import type { SwitchoverMode } from '@vmferry/engine/switchover/protocol';
import { JournalFile, journalPath } from './journal-file.ts';

type Role = JournalRecord['role'];
type StateOf<R extends Role> = Extract<JournalRecord, { role: R }>['state'];

export interface SessionJournalOptions<R extends Role> {
  readonly stateDir: string;
  readonly session: string;
  readonly guest: string;
  readonly role: R;
  /** The peer agent's URL, where it has one. */
  readonly peer?: string;
}

export class SessionJournal<R extends Role> {
  readonly #file: JournalFile;
  readonly #options: SessionJournalOptions<R>;

  private constructor(file: JournalFile, options: SessionJournalOptions<R>) {
    this.#file = file;
    this.#options = options;
  }

  /** Rejects with `GuestError` E_JOURNAL. */
  static async open<R extends Role>(options: SessionJournalOptions<R>): Promise<SessionJournal<R>> {
    const { stateDir, session, role } = options;
    return new SessionJournal(await JournalFile.open(journalPath(stateDir, `${session}-${role}`)), options);
  }

  /** Resolves when the record is on disk; rejects as `JournalFile.append` does. */
  async write(state: StateOf<R>, mode: SwitchoverMode): Promise<void> {
    const { session, guest, role, peer } = this.#options;
    const common = { v: 1, session, guest, mode, at: Date.now(), ...(peer === undefined ? {} : { peer }) };
    await this.#file.append(encodeRecord({ ...common, role, state } as JournalRecord).trimEnd());
  }

  /** As `JournalFile.close`. */
  close(): Promise<void> {
    return this.#file.close();
  }
}
