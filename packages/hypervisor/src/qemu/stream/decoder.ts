/**
 * Source side: QEMU's migration stream becomes items. Sans-I/O; `push` a chunk, then take items with `next`
 * until there is none.
 *
 *     header ─ configuration? ─▶ records ─ start of ram ─▶ setup words ─▶ footer ─▶ records     (all opaque)
 *     records ─ part or end of ram ─▶ page words ─▶ footer ─▶ records                           (page batches)
 *     records ─ command ─▶ records                                                (opaque, with a notice each)
 *     records ─ packaged command ─▶ device state, length known ─▶ records                             (opaque)
 *     footer of ram's end, pre-copy ──▶ tail: device state, length unknown, to the end of input       (opaque)
 *     EOF ──▶ tail                                                                                    (opaque)
 *     anything that is not understood ──▶ verbatim, to the end of input                               (opaque)
 */
import type { BatchLimits } from '@vmferry/engine/carriage/batch-limits';
import type { PageBatch, RamLayout } from '@vmferry/engine/guest';
import { type Bytes, PAGE_BYTES, type Round } from '@vmferry/engine/units';
import type { ContentAllocator } from './batch-builder.ts';
import { readCommand } from './command.ts';
import { ConfigurationReader, SubsectionReader } from './configuration.ts';
import type { DecodedItem, StreamCounts, StreamEnd } from './decoded.ts';
import { StreamError } from './error.ts';
import {
  Command,
  RAM_SECTION,
  RAM_SECTION_VERSION,
  RecordType,
  STREAM_MAGIC,
  STREAM_VERSION,
} from './format.ts';
import { Intake } from './intake.ts';
import { BlockTable } from './layout.ts';
import { OpaqueOutput } from './opaque-output.ts';
import { PageReader, type UrgentPredicate } from './page-reader.ts';
import { nameLength, type PieceReader } from './piece-reader.ts';
import { ramEndSection } from './ram-records.ts';
import { checkFooter, RamSectionReader, type RefusedRecord } from './ram-section.ts';
import { RamSetupReader } from './ram-setup.ts';

export interface StreamDecoderOptions {
  /** Raw pages a batch holds at most (huge-page blocks in post-copy: at least one whole huge page). */
  readonly batchPages: number;
  /** Pages of any kind a batch holds at most. Defaults to `batchPages`. */
  readonly batchPagesInAll?: number;
  /** What batches hold at most once post-copy has begun. Defaults to the same. */
  readonly postcopyBatch?: BatchLimits;
  /** Defaults to fresh memory for every batch. */
  readonly allocate?: ContentAllocator;
  /** Largest device state of post-copy, in bytes. */
  readonly maxPackagedBytes?: number;
  /** Largest opaque item of device state, in bytes. */
  readonly opaqueBytes?: number;
  readonly maxBlocks?: number;
  /** Largest huge page that post-copy may carry whole, in bytes. */
  readonly maxHostPageBytes?: number;
}

/** What the next piece of input is. The names appear in messages. */
const State = {
  header: 'file header',
  /** Something in small pieces, all opaque: see `#reader`. */
  pieces: 'record',
  record: 'start of a record',
  sectionStart: 'start of a section',
  sectionName: 'name of a section',
  setupFooter: 'footer of the RAM setup',
  ram: 'RAM section',
  command: 'command',
  commandPayload: 'payload of a command',
  packaged: 'packaged device state',
  tail: 'tail',
} as const;
type State = (typeof State)[keyof typeof State];

const LARGEST_PIECE = 0x10000;

export class StreamDecoder {
  /** Post-copy, for latency: pages do not wait for the next chunk to fill their batch. */
  flushAtChunkEnd = false;

  readonly #input = new Intake(LARGEST_PIECE);
  readonly #opaque: OpaqueOutput;
  readonly #items: DecodedItem[] = [];
  readonly #pages: PageReader;
  #postcopyBatch: BatchLimits;
  readonly #maxPackagedBytes: number;
  readonly #maxBlocks: number;

  #state: State = State.header;
  #chunkOpen = false;
  #failure: Error | undefined;
  /** Set from a state to the ones after it. */
  #length = 0;
  /** A configuration comes first or not at all, and what belongs to it right after it. */
  #configuration: 'expected' | 'open' | 'past' = 'expected';
  #command = 0;
  #packagedLeft = 0;
  #reader: PieceReader | undefined;
  #setup: RamSetupReader | undefined;
  #setupId = 0;
  #ram: RamSectionReader | undefined;
  #blocks: BlockTable | undefined;
  /** Page sizes of all blocks or-ed, 0 if post-copy was not advised. */
  #hostSummary = 0;
  #inPostcopy = false;
  #ramEnded = false;
  #sawEof = false;

  constructor(options: StreamDecoderOptions) {
    const { batchPages, maxHostPageBytes = 2 ** 30 } = options;
    const batch = checked({ rawPages: batchPages, pages: options.batchPagesInAll ?? batchPages });
    this.#postcopyBatch = checked(options.postcopyBatch ?? batch);
    this.#maxPackagedBytes = options.maxPackagedBytes ?? 512 * 2 ** 20;
    this.#opaque = new OpaqueOutput(this.#input, options.opaqueBytes ?? 256 * 2 ** 10, (opaque) =>
      this.#items.push({ type: 'opaque', bytes: opaque }),
    );
    this.#maxBlocks = options.maxBlocks ?? 4096;
    const allocate = options.allocate ?? ((bytes) => ({ content: new Uint8Array(bytes), release: () => {} }));
    this.#pages = new PageReader(this.#items as PageBatch[], batch, maxHostPageBytes, allocate);
  }

  /** What the batches that are begun from now on hold at most, before post-copy and in it. */
  limitBatches(precopy: BatchLimits, postcopy: BatchLimits): void {
    const before = checked(precopy);
    this.#postcopyBatch = checked(postcopy);
    this.#pages.limits = this.#inPostcopy ? this.#postcopyBatch : before;
  }

  get round(): Round {
    return this.#pages.round;
  }
  /** The round of batches begun from now on. */
  set round(round: Round) {
    if (round !== this.#pages.round && !this.#pages.inHostPage) this.#pages.flush();
    this.#pages.round = round;
  }

  /**
   * Decides each page's lane; asked once for each host page that stays whole. Pages are read much faster as long
   * as nothing has to be asked.
   */
  set isUrgent(predicate: UrgentPredicate | undefined) {
    this.#pages.isUrgent = predicate;
  }

  get wholeHostPages(): boolean {
    return this.#pages.wholeHostPages;
  }
  /** Sets itself when post-copy begins. */
  set wholeHostPages(whole: boolean) {
    this.#pages.wholeHostPages = whole;
  }

  /** Has the stream gone over to post-copy? */
  get inPostcopy(): boolean {
    return this.#inPostcopy;
  }

  get layout(): RamLayout | undefined {
    return this.#blocks?.layout;
  }

  get counts(): StreamCounts {
    return {
      bytes: this.#input.offset as Bytes,
      opaqueBytes: this.#opaque.count as Bytes,
      rawPages: this.#pages.rawPages,
      zeroPages: this.#pages.zeroPages,
    };
  }

  /**
   * Hands the next chunk over, which must stay unchanged as long as opaque items made of it are in use.
   * The chunk before must have been used up: `next` has returned undefined.
   */
  push(chunk: Uint8Array): void {
    if (this.#chunkOpen)
      throw new RangeError('The chunk before is not used up: call next() until undefined.');
    this.#input.push(chunk);
    this.#chunkOpen = true;
  }

  /**
   * The next item, in stream order, or undefined when more input is needed. Nothing is read ahead of the
   * item, so settings changed between two calls apply from there on. Throws `StreamError` from where the
   * stream is broken; the decoder is then done for.
   */
  next(): DecodedItem | undefined {
    while (this.#items.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        if (!this.#step() && !this.#endChunk()) return undefined;
      } catch (error) {
        this.#pages.drop();
        this.#failure = this.#locate(error);
      }
    }
    return this.#items.shift();
  }

  /** `push` and `next` in one. Must be run to its end. */
  *decode(chunk: Uint8Array): Generator<DecodedItem, void, undefined> {
    this.push(chunk);
    for (let item = this.next(); item !== undefined; item = this.next()) yield item;
  }

  /** No more input comes, and nothing is read any more. Gives back what was gathered and not sent out. */
  finish(): StreamEnd {
    this.#pages.drop();
    for (const item of this.#items.splice(0)) if (item.type === 'pages') item.release();
    if (this.#failure !== undefined) return { state: 'truncated', where: this.#failure.message };
    this.#failure = new StreamError('The stream was finished.');
    if (this.#state === State.tail) {
      return { state: this.#sawEof ? 'whole' : 'opaque' };
    }
    return { state: 'truncated', where: this.#state };
  }

  #locate(error: unknown): Error {
    if (error instanceof StreamError) {
      return new StreamError(`${error.message} (near byte ${this.#input.offset})`, { cause: error });
    }
    return error instanceof Error ? error : new Error(String(error));
  }

  /** At the end of a chunk: everything that should not wait. True if there was anything. */
  #endChunk(): boolean {
    if (!this.#chunkOpen) return false;
    this.#chunkOpen = false;
    if (this.#state === State.record && this.#input.carried === 0) this.#opaque.flush();
    if (this.flushAtChunkEnd && !this.#pages.inHostPage) this.#pages.flush();
    return this.#items.length > 0;
  }

  /** Reads one piece. False when the input does not reach. */
  #step(): boolean {
    switch (this.#state) {
      case State.ram:
        return this.#readRam();
      case State.record:
        return this.#readRecord();
      case State.pieces:
        return this.#readPiece();
      case State.packaged:
        return this.#passPackaged();
      case State.tail:
        return this.#opaque.pass(this.#input.left) > 0;
      case State.command:
      case State.commandPayload:
        return this.#readCommand();
      case State.sectionStart:
      case State.sectionName:
        return this.#readSectionStart();
      case State.setupFooter:
        return this.#readSetupFooter();
      default:
        return this.#readHeader();
    }
  }

  #to(state: State): true {
    this.#state = state;
    return true;
  }

  /**
   * Gives up understanding the stream before the present record; `refused` says what became of it inside a
   * RAM section.
   */
  #goVerbatim(why: string, refused?: RefusedRecord): true {
    this.#pages.flush();
    const inOrder = this.#ramEnded || refused?.namesBlock === true;
    const block = inOrder ? undefined : this.#pages.resendLast(this.#setupId);
    if (block !== undefined && this.#inPostcopy) {
      throw new StreamError(`Post-copy cannot go on verbatim: ${why}.`);
    }
    this.#opaque.flushBeforeRecord();
    this.#items.push({ type: 'verbatim', why });
    if (block !== undefined) this.#opaque.send(block);
    if (refused !== undefined) this.#opaque.send(refused.prelude);
    this.#opaque.flush();
    return this.#to(State.tail);
  }

  #readHeader(): boolean {
    const input = this.#input;
    if (!this.#opaque.take(8)) return false;
    if (input.u32() !== STREAM_MAGIC) throw new StreamError('This is not a migration stream of QEMU.');
    if (input.u32(4) !== STREAM_VERSION) {
      throw new StreamError(`The migration stream has version ${input.u32(4)}; only 3 is known.`);
    }
    return this.#to(State.record);
  }

  #readPieces(reader: PieceReader): true {
    this.#reader = reader;
    return this.#to(State.pieces);
  }

  #readPiece(): boolean {
    const reader = this.#reader!;
    if (!this.#opaque.take(reader.need)) return false;
    const outcome = reader.read(this.#input);
    if (outcome === 'more') return true;
    if (outcome === 'done') return this.#to(reader === this.#setup ? State.setupFooter : State.record);
    return this.#goVerbatim(outcome.verbatim);
  }

  #readRecord(): boolean {
    const input = this.#input;
    if (!input.take(1)) return false;
    const type = input.u8();
    const configuration = this.#configuration;
    this.#configuration = 'past';
    this.#opaque.beginRecord();
    if (type === RecordType.sectionPart || type === RecordType.sectionEnd) {
      if (this.#ram === undefined || this.#ramEnded)
        throw new StreamError('A section goes on but is not open.');
      this.#opaque.flush();
      this.#ram.begin(type);
      return this.#to(State.ram);
    }
    this.#opaque.gather(1);
    switch (type) {
      case RecordType.configuration:
        if (configuration !== 'expected')
          throw new StreamError('A configuration stands in the midst of the stream.');
        this.#configuration = 'open';
        return this.#readPieces(new ConfigurationReader());
      case RecordType.subsection:
        if (configuration !== 'open')
          throw new StreamError('A subsection stands where a record should begin.');
        this.#configuration = 'open';
        return this.#readPieces(new SubsectionReader());
      case RecordType.sectionStart:
        return this.#to(State.sectionStart);
      case RecordType.command:
        return this.#to(State.command);
      case RecordType.sectionFull:
        return this.#goVerbatim('device state comes before the end of RAM');
      case RecordType.eof:
        if (this.#ram !== undefined && !this.#ramEnded)
          throw new StreamError('The stream ends before RAM does.');
        this.#sawEof = true;
        this.#opaque.flush();
        return this.#to(State.tail);
      case RecordType.footer:
        throw new StreamError('A section footer stands where a record should begin.');
      default:
        return this.#goVerbatim(`record type ${type} is unknown`);
    }
  }

  #readSectionStart(): boolean {
    const input = this.#input;
    if (this.#state === State.sectionStart) {
      if (!this.#opaque.take(5)) return false;
      this.#setupId = input.u32();
      this.#length = nameLength(input.u8(4));
      return this.#to(State.sectionName);
    }
    if (!this.#opaque.take(this.#length + 8)) return false;
    const name = input.text(0, this.#length);
    if (name !== RAM_SECTION) return this.#goVerbatim(`the iterable section "${name}" is unknown`);
    const version = input.u32(this.#length + 4);
    if (version !== RAM_SECTION_VERSION) return this.#goVerbatim(`the RAM section has version ${version}`);
    if (this.#setup !== undefined) throw new StreamError('The RAM section begins twice.');
    this.#setup = new RamSetupReader(this.#hostSummary, this.#maxBlocks);
    return this.#readPieces(this.#setup);
  }

  #readSetupFooter(): boolean {
    if (!this.#opaque.take(5)) return false;
    checkFooter(this.#input, this.#setupId);
    const layout = this.#setup!.layout();
    if (layout === undefined) return this.#goVerbatim('the RAM section begins without a layout');
    this.#blocks = new BlockTable(layout);
    this.#pages.blocks = this.#blocks;
    this.#ram = new RamSectionReader(this.#setupId, this.#pages);
    this.#opaque.flush();
    this.#items.push({ type: 'ram-layout', layout, sectionId: this.#setupId });
    return this.#to(State.record);
  }

  #readRam(): boolean {
    const ram = this.#ram!;
    const outcome = ram.step(this.#input);
    if (outcome === 'more') return true;
    if (outcome === 'starved') return false;
    if (outcome !== 'done') return this.#goVerbatim(outcome.why, outcome);
    this.#state = State.record;
    if (ram.type === RecordType.sectionEnd) {
      this.#ramEnded = true;
      this.#items.push({ type: 'ram-end' });
      this.#opaque.send(ramEndSection(ram.sectionId));
      // In pre-copy device state follows, and only the device model knows its length.
      if (!this.#inPostcopy) this.#state = State.tail;
    }
    return true;
  }

  #readCommand(): boolean {
    const input = this.#input;
    if (this.#state === State.command) {
      if (!this.#opaque.take(4)) return false;
      this.#command = input.u16();
      this.#length = input.u16(2);
      return this.#to(State.commandPayload);
    }
    if (!this.#opaque.take(this.#length)) return false;
    const notice = readCommand(this.#command, this.#length, input, this.#blocks);
    if (this.#command === Command.enableColo) return this.#goVerbatim('COLO was switched on');
    if (notice.name === 'advise' && notice.pageSizes !== undefined) {
      if (notice.pageSizes.guest !== PAGE_BYTES) {
        return this.#goVerbatim(`pages of the guest have ${notice.pageSizes.guest} bytes`);
      }
      if (notice.pageSizes.hostSummary % PAGE_BYTES !== 0 || notice.pageSizes.hostSummary === 0) {
        throw new StreamError('Post-copy is advised with page sizes that are none.');
      }
      this.#hostSummary = notice.pageSizes.hostSummary;
    }
    // The notice stands before the command's bytes, which may wait for more.
    this.#opaque.flushBeforeRecord();
    this.#items.push(notice);
    this.#state = State.record;
    if (notice.name === 'listen' || notice.name === 'packaged') this.#enterPostcopy();
    if (notice.name === 'packaged') this.#beginPackaged(notice.bytes);
    return true;
  }

  #enterPostcopy(): void {
    this.#inPostcopy = true;
    this.#pages.wholeHostPages = true;
    this.#pages.limits = this.#postcopyBatch;
  }

  #beginPackaged(length: number): void {
    if (length > this.#maxPackagedBytes) {
      throw new StreamError(
        `Device state of ${length} bytes exceeds the limit of ${this.#maxPackagedBytes}.`,
      );
    }
    this.#packagedLeft = length;
    this.#state = State.packaged;
  }

  #passPackaged(): boolean {
    if (this.#packagedLeft > 0) {
      const passed = this.#opaque.pass(this.#packagedLeft);
      this.#packagedLeft -= passed;
      if (this.#packagedLeft > 0) return passed > 0;
    }
    this.#opaque.flush();
    this.#items.push({ type: 'state-complete', pagesFollow: true });
    return this.#to(State.record);
  }
}

function checked(limits: BatchLimits): BatchLimits {
  const { rawPages, pages } = limits;
  const whole = Number.isInteger(rawPages) && Number.isInteger(pages);
  if (!whole || rawPages < 1 || pages < rawPages) {
    throw new RangeError('A batch must hold at least 1 raw page, and no fewer pages than raw ones.');
  }
  return limits;
}
