/**
 * The seam between guests and agents. A hypervisor (QEMU, libvirt) or the memory simulator implements
 * `SourceGuest` and `DestGuest`; agents and policy know nothing else of a guest.
 *
 * Order of a source guest's items:
 *
 *     opaque* ram-layout (opaque | pages | round-over | round-end)* stopped
 *             (opaque | pages | round-over | round-end)* end
 *
 * `opaque` items are barriers: the destination applies one only after every page batch that came before
 * it, and no page batch that came after it any sooner. Between two barriers batches may be applied in any
 * order, except that batches that hold the same page keep theirs.
 *
 * In post-copy the batch after `state-complete` are the pages that the destination still lacks; each of
 * them comes once.
 */
import type { Duplex } from 'node:stream';
import type { BatchLimits } from './carriage/batch-limits.ts';
import type { GuestError } from './errors.ts';
import type { BlockIndex, Bytes, BytesPerSec, Millis, Pages, Round } from './units.ts';

export interface RamBlock {
  /** The hypervisor's own name, the same on both sides. At most 255 bytes. */
  readonly name: string;
  readonly bytes: Bytes;
  /** What the block's back-end maps at once: 4096, or the huge page's size. */
  readonly hostPageBytes: Bytes;
}

export interface RamLayout {
  readonly blocks: readonly RamBlock[];
}

/** What one page of a batch is. The numbers go over the wire. */
export const PageKind = {
  /** The batch's content holds its 4096 bytes. */
  raw: 0,
  /** All bytes are zero; no content. */
  zero: 1,
} as const;

/** `express` answers a page fault and overtakes everything; `bulk` is everything else. */
export type Lane = 'bulk' | 'express';

/** A handful of pages of one block. Its buffers belong to the guest's pool until `release` is called. */
export interface PageBatch {
  readonly type: 'pages';
  readonly block: BlockIndex;
  readonly round: Round;
  readonly lane: Lane;
  /** Page numbers within the block, in the order in which they came. */
  readonly pages: Uint32Array;
  /** `PageKind` of each page. */
  readonly kinds: Uint8Array;
  /**
   * The raw pages' content, 4096 bytes each, in the order of `pages`. Where there is any, the carrier may
   * overwrite up to `headroomBytes` of the buffer right before it, so that a frame is built without a copy.
   */
  readonly content: Uint8Array;
  readonly headroomBytes: Bytes;
  /** Gives the buffers back. Must be called exactly once, also on failure. */
  release(): void;
}

export type SourceItem =
  | { readonly type: 'ram-layout'; readonly layout: RamLayout }
  | PageBatch
  /**
   * The pages of a round have all come before this. Its `round-end` follows, later where the hypervisor answers nobody
   * at that moment; where this is left out it is here.
   */
  | { readonly type: 'round-over'; readonly round: Round }
  | {
      readonly type: 'round-end';
      readonly round: Round;
      /** Dirty bytes that the next round has to send. */
      readonly remainingBytes: Bytes;
      readonly dirtyBytesPerSec: BytesPerSec;
    }
  /** Bytes to be replayed on the destination, in order. A barrier (see the module's head). */
  | { readonly type: 'opaque'; readonly bytes: Uint8Array }
  /** From here on nothing of the stream is understood and all of it is opaque; `why` goes to the report. */
  | { readonly type: 'verbatim'; readonly why: string }
  /** The guest stands still on the source since `atMs` (source's wall clock, milliseconds since the epoch). */
  | { readonly type: 'stopped'; readonly atMs: Millis }
  /**
   * Everything that the destination needs to load the guest has been emitted. In pre-copy the source's
   * hypervisor has by now given up every automatic restart (`end` follows at once); in post-copy pages follow.
   */
  | { readonly type: 'state-complete'; readonly pagesFollow: boolean }
  /** The stream is over and the source's hypervisor has nothing more to send. */
  | { readonly type: 'end' };

export interface Nic {
  /** "52:54:00:12:34:56" */
  readonly mac: string;
  /** The device's id or name in the guest's own configuration, for messages. */
  readonly name: string;
  /** The host's interface (tap) if the hypervisor tells it. */
  readonly hostInterface?: string;
  /** Addresses known on this side (guest agent, neighbour table), without prefix length. */
  readonly addresses: readonly string[];
}

/** How a guest stands, its migration aside. */
export interface RunState {
  readonly running: boolean;
  /** The hypervisor's own word for it: "paused", "io-error". */
  readonly word: string;
}

/** What the source knows of a guest before anything is touched. It goes to the destination's `prepare`. */
/** What a guest's CPUs can do. */
export interface CpuDescription {
  /** As the hypervisor calls it. */
  readonly model: string;
  /** CPUID's words of features that are not empty: `7h.0:EBX` is leaf 7, sub-leaf 0. */
  readonly features: readonly { readonly word: string; readonly bits: number }[];
}

/** A block whose content is a file that others may write to as well. */
export interface SharedMemory {
  readonly block: string;
  readonly path: string;
  /** The same for the same file of the same host, and for no other. */
  readonly file: string;
}

export interface GuestDescription {
  readonly kind: 'qemu' | 'libvirt' | 'sim';
  readonly name: string;
  readonly hypervisorVersion: string;
  readonly machine: string;
  readonly vcpus: number;
  /** Where the hypervisor tells. */
  readonly cpu?: CpuDescription;
  readonly memoryBytes: Bytes;
  readonly blocks: readonly RamBlock[];
  /** Left out: none. */
  readonly sharedMemory?: readonly SharedMemory[];
  readonly nics: readonly Nic[];
  readonly running: boolean;
  /**
   * The hypervisor's dirty log can be relied on for one round only: whatever the guest writes during a second
   * one may be missed. Rounds end after the first, and what it left dirty is sent with the guest stopped.
   */
  readonly oneLiveRound: boolean;
  /** Of a guest that libvirt keeps. */
  readonly libvirt?: LibvirtDescription;
  /** What the destination's preflight wants to know of this kind of guest, for its driver to check. */
  readonly preflight?: unknown;
}

/** What a source's driver finds before anything is touched, besides what is in the way. */
export interface SourcePreflight {
  /** Plain values, for the destination's driver of the same kind. */
  readonly facts: unknown;
  /** Warnings, as sentences. */
  readonly notes: readonly string[];
}

export interface LibvirtDescription {
  readonly uuid: string;
  /** The directory of sockets, as the source's libvirtd sees it: the destination's must see its own there. */
  readonly socketDir: string;
  /** The name of this migration's own directory in it, which nobody can guess. */
  readonly rendezvous: string;
}

/** What only a guest has that a management layer keeps. */
export interface ManagedPlan {
  /** What it is called on the destination, unless as here. */
  readonly destName?: string;
  /** The source's definition goes once the guest has moved. */
  readonly undefineSource: boolean;
  /** The domain as the destination is to have it; what the guest sees must not change. */
  readonly destXml?: string;
  /** Disks that the hosts do not share: whole, or what lies above their backing files. */
  readonly copyStorage: 'none' | 'all' | 'inc';
  /** The source's hypervisor is to stay, paused. */
  readonly keepSource: boolean;
}

/**
 * A connection of the hypervisors' own beside the guest's stream, which the agents carry verbatim: libvirt's calls,
 * a disk, or the guest's stream where nothing of it has to be understood.
 */
export type SideKind = 'rpc' | 'nbd' | 'ram';

export interface SideConnection {
  readonly kind: SideKind;
  readonly stream: Duplex;
}

/** How a guest is going to be moved. Fixed when the stream is opened. */
export interface SourcePlan {
  /** The guest's CPUs may be throttled later: see `setThrottle`. */
  readonly throttle: boolean;
  /** Post-copy may be started later; both sides must be prepared for it. */
  readonly postcopy: boolean;
  /**
   * What page batches hold at most before post-copy begins, and after (blocks of huge pages: at least one whole
   * huge page).
   */
  readonly batches: { readonly precopy: BatchLimits; readonly postcopy: BatchLimits };
  /** What the guest's driver may keep in buffers, in bytes. */
  readonly bufferBytes: Bytes;
  readonly managed?: ManagedPlan;
}

/** A range of pages in one block. */
export interface PageRange {
  readonly block: BlockIndex;
  readonly first: Pages;
  readonly count: Pages;
}

/** What the source guest knows at any time without being asked for an item. */
export interface SourceProgress {
  readonly round: Round;
  readonly remainingBytes: Bytes;
  readonly dirtyBytesPerSec: BytesPerSec;
  /** Of disks that are copied along. */
  readonly disks?: { readonly copiedBytes: Bytes; readonly totalBytes: Bytes };
}

export interface SourceGuest {
  /** Reads only. Throws `GuestError` when the guest cannot be reached. */
  describe(): Promise<GuestDescription>;
  /** Every reason why this guest cannot be moved by `plan`, none if it can. Reads only. */
  blockers(plan: SourcePlan): Promise<readonly GuestError[]>;
  /** What this side knows of the guest that the destination's preflight wants to know. Reads only. */
  preflight?(plan: SourcePlan): Promise<SourcePreflight>;
  /**
   * Starts the migration; the stream honours back-pressure by not being pulled. May be called once. `session`: what an
   * agent that is started again knows it by.
   */
  open(plan: SourcePlan, session: string): Promise<AsyncIterable<SourceItem>>;
  /** Connections for the destination's `connectSide`, from before `open` until `close`. */
  readonly sideConnections?: AsyncIterable<SideConnection>;
  progress(): Promise<SourceProgress>;
  /**
   * How fast the guest dirties memory, without reading the dirty log: different pages in so many whole seconds
   * (default 1). Undefined where that cannot be told.
   */
  measureDirtyRate(seconds?: number): Promise<BytesPerSec | undefined>;
  /** Stops the guest at the next chance and sends the rest (pre-copy). */
  switchover(): Promise<void>;
  /** Stops the guest, sends its state, then serves pages (needs `plan.postcopy`). */
  startPostcopy(): Promise<void>;
  /** Asks for pages (post-copy). Pages that were sent already are passed over in silence. */
  requestPages(ranges: readonly PageRange[], lane: Lane): void;
  /**
   * Post-copy, where the driver can read the stopped guest's memory itself: those pages of the range that have
   * not been handed out yet, which will then not come with the stream. `sent`: there are none left.
   * Undefined: it cannot, so they have to be asked for.
   */
  takePages(range: PageRange): PageBatch | 'sent' | undefined;
  /**
   * So much content gets away in a second. What the driver reads and gathers ahead of that
   * counts as downtime when the guest stops: it should be some hundredths of a second's worth.
   */
  setPace(contentBytesPerSec: BytesPerSec): void;
  /**
   * How the guest stood when the migration stopped it, from the item `state-complete` on: others may have stopped it
   * or let it go on since `describe`. Left out: as it was described.
   */
  runState?(): Promise<RunState>;
  /**
   * Slows the guest's CPUs by `percent` (0 to 99); 0 lets go. Left out where the hypervisor cannot be told by how much:
   * with `plan.throttle` it slows them by itself, as it sees fit.
   */
  setThrottle?(percent: number): Promise<void>;
  /** Bytes that the destination's hypervisor answers to the source's, carried untouched. */
  deliverReply(bytes: Uint8Array): void;
  /**
   * Post-copy, once the destination has loaded the guest: resolves when the hypervisor can no longer run the guest by
   * itself, whatever breaks; rejects with why it never comes to that. Nothing is committed before. Left out where the
   * hypervisor never does.
   */
  letsGo?(): Promise<void>;
  /**
   * Gives the migration up and lets the guest run on the source, exactly as before it began. Callable in
   * every phase until `forget`; works however far the stream got, as long as the destination never ran.
   */
  rollback(): Promise<void>;
  /** After a roll-back: somebody else than this agent had the migration given up, and who. */
  readonly abortedBy?: GuestError | undefined;
  /** After a roll-back: how the guest differs from before all the same, and what the operator can do. */
  readonly remark?: string | undefined;
  /** The commit is on disk: the destination may run the guest from now on. */
  committed?(): void;
  /**
   * Post-copy that came to a halt after the commit: the guest's hypervisors are left so that it can be finished. What
   * is open is closed.
   */
  suspend?(): Promise<void>;
  /** Rejects where the guest is here, and in no post-copy that could be finished. */
  expectHalted?(): Promise<void>;
  /**
   * Finishes a post-copy that came to a halt, of a driver that was opened anew: its stream goes by `sideConnections`.
   * Resolves when the destination has all of the guest. What the plan says of its name there and of its definition here
   * holds as for a migration that begins. `tell` takes sentences for the report.
   */
  finishPostcopy?(plan: ManagedPlan, tell: (note: string) => void): Promise<void>;
  /**
   * The destination has all of a guest whose post-copy came to a halt here: what is left of it is ended. Rejects where it
   * is not in post-copy.
   */
  endMoved?(plan: ManagedPlan): Promise<void>;
  /** The destination runs the guest: this side never does again. `destroy` also ends the hypervisor. */
  forget(options: { destroy: boolean }): Promise<void>;
  /** Lets go of sockets without a word to the guest. */
  close(): Promise<void>;
  /** Resolves with the reason when the hypervisor dies or the guest comes to its end in it. Never rejects. */
  readonly gone: Promise<GuestError>;
}

export type DestEvent =
  /** A vCPU waits for this page. */
  | { readonly type: 'fault'; readonly range: PageRange }
  | { readonly type: 'reply'; readonly bytes: Uint8Array };

export interface DestPlan {
  readonly postcopy: boolean;
  readonly bufferBytes: Bytes;
}

export type PrepareResult =
  | {
      readonly ok: true;
      readonly hypervisorVersion: string;
      readonly nics: readonly Nic[];
      readonly notes?: readonly string[];
    }
  | { readonly ok: false; readonly reasons: readonly GuestError[]; readonly notes?: readonly string[] };

/** What a destination guest applies. */
export type DestItem = Exclude<SourceItem, { type: 'round-over' | 'round-end' | 'stopped' | 'verbatim' }>;

/** What a guest's driver finds when it looks at the guest after its arrival. */
export type Examination =
  /** This hypervisor cannot tell. */
  | { readonly found: 'nothing' }
  /** All is as it must be; what was compared, as a sentence. */
  | { readonly found: 'sound'; readonly words: string }
  | { readonly found: 'damage'; readonly error: GuestError };

export interface DestGuest {
  /** Yes, or no with every reason at once. Touches nothing that a refusal would have to undo. */
  prepare(description: GuestDescription, plan: DestPlan): Promise<PrepareResult>;
  /**
   * Makes the hypervisor ready to take the stream. By `session` (the migration's public id) an agent that was
   * restarted knows what was prepared here and never ran.
   */
  open(plan: DestPlan, session: string): Promise<void>;
  /** Resolves when the hypervisor has taken the item, which is the back-pressure. Takes over batches. */
  apply(item: DestItem): Promise<void>;
  readonly events: AsyncIterable<DestEvent>;
  /** The other end of a source's side connection, on this host. From `open` on. */
  connectSide?(kind: SideKind): Promise<Duplex>;
  /** In post-copy the source's hypervisor can never run it again: once loaded, it runs here or nowhere. */
  readonly postcopyIsFinal?: boolean;
  /** Post-copy that came to a halt: as `SourceGuest.suspend`. */
  suspend?(): Promise<void>;
  /** Whether a post-copy of this guest came to a halt here, that `open` and `connectSide` then serve to finish. */
  rejoin?(description: GuestDescription): Promise<PrepareResult>;
  /** Where the guest's NICs are attached, if that is known only when it is loaded. */
  places?(): Promise<readonly Nic[]>;
  /** Resolves when all state is loaded and the guest could run but does not. */
  ready(): Promise<void>;
  /** Resolves when no page is missing any more (at once after pre-copy). */
  complete(): Promise<void>;
  /** Runs the guest (or leaves it paused if it was paused on the source). The stamp is the wall clock's. */
  run(options: { paused: boolean }): Promise<{ readonly atMs: Millis }>;
  /**
   * Once no page is missing and the guest runs: is it what left the source? The guest may be held up for it.
   */
  examine(): Promise<Examination>;
  /** Whether `examine` looks at anything, which may take long. */
  readonly examines?: boolean;
  /** An operator was called: what is done with the guest by hand from now on is not undone. */
  handOver?(): void;
  /** What happened to the guest here that its operator should know: a sentence for the report. */
  readonly remark?: string | undefined;
  /** Asks the hypervisor itself to announce the guest, where it can. */
  announceSelf(): Promise<void>;
  /** Ends the guest here for good: it never ran. */
  discard(): Promise<void>;
  /** After success: the hypervisor's settings are put back as they were. */
  settle(): Promise<void>;
  close(): Promise<void>;
  readonly gone: Promise<GuestError>;
}
