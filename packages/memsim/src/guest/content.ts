/**
 * What a page of a simulated guest holds. Its bytes follow from the guest's seed, the page's number and its
 * generation (how often it was written), so they need not be kept: whoever has the generation has the bytes.
 *
 *     generation 0   zero: nothing at all · text, random: as below · duplicate: one of a few pages, the same
 *                    for all that share it
 *     later          u32 magic, page, generation, seed, class, check; 0, 0 │ 256 bytes of this write │ body
 *
 * The body is the same in every generation, as most of a page stays what it was when a program writes to it.
 */
import type { ContentMix } from '../guest-file/schema.ts';
import { draw, hash } from '../random.ts';
import { MAX_GENERATION } from './shared.ts';

export const PAGE_WORDS = 1024;
const PAGE_BYTES = PAGE_WORDS * 4;
const HEADER_WORDS = 8;
const STAMP_WORDS = 64;
const BODY = HEADER_WORDS + STAMP_WORDS;
/** "VMSM" */
const MAGIC = 0x4d53_4d56;
const GENERATION_AT = 2;
/** So many different pages have all duplicates between them. */
const DUPLICATES = 64;

type ContentClass = 'zero' | 'text' | 'random' | 'duplicate';
const CLASS_NUMBER: Readonly<Record<ContentClass, number>> = { zero: 0, text: 1, random: 2, duplicate: 3 };

export class PageContent {
  readonly #seed: number;
  readonly #upTo: { readonly zero: number; readonly text: number; readonly random: number };
  readonly #scratch = new Uint32Array(PAGE_WORDS);
  readonly #scratchBytes = Buffer.from(this.#scratch.buffer);

  constructor(seed: number, { zero, text, random }: ContentMix) {
    this.#seed = seed;
    this.#upTo = { zero, text: zero + text, random: zero + text + random };
  }

  /** Whether the page is all zeroes. */
  isZero(page: number, generation: number): boolean {
    return generation === 0 && this.#classOf(page) === 'zero';
  }

  /** Writes the page's 1024 words, little-endian. */
  fill(words: Uint32Array, page: number, generation: number): void {
    const kind = this.#classOf(page);
    if (generation === 0 && kind === 'zero') {
      words.fill(0);
      return;
    }
    const unwritten = generation === 0 && kind === 'duplicate';
    this.#fillBody(words, page, kind);
    // Unwritten duplicates are the same in every byte.
    const owner = unwritten ? this.#original(page) : page;
    fillStamp(words, hash(this.#seed, 0x7374_6d70, owner, generation), kind);
    words[0] = MAGIC;
    words[1] = owner;
    words[GENERATION_AT] = generation;
    words[3] = this.#seed;
    words[4] = CLASS_NUMBER[kind];
    words[5] = hash(this.#seed, owner, generation, CLASS_NUMBER[kind]);
    words[6] = 0;
    words[7] = 0;
  }

  /** The generation of which the page has exactly these 4096 bytes; undefined if there is none. */
  recognise(bytes: Uint8Array, page: number): number | undefined {
    const generation = hasMagic(bytes) ? wordAt(bytes, GENERATION_AT) : 0;
    if (generation > MAX_GENERATION) return undefined;
    this.fill(this.#scratch, page, generation);
    return this.#scratchBytes.compare(bytes, 0, PAGE_BYTES) === 0 ? generation : undefined;
  }

  #classOf(page: number): ContentClass {
    const share = draw(hash(this.#seed, 0x636f_6e74), page);
    if (share < this.#upTo.zero) return 'zero';
    if (share < this.#upTo.text) return 'text';
    return share < this.#upTo.random ? 'random' : 'duplicate';
  }

  #original(page: number): number {
    return hash(this.#seed, 0x6475_706c, page) % DUPLICATES;
  }

  #fillBody(words: Uint32Array, page: number, kind: ContentClass): void {
    switch (kind) {
      case 'zero':
        words.fill(0, BODY);
        return;
      case 'text':
        fillText(words, BODY, PAGE_WORDS, hash(this.#seed, 0x7465_7874, page));
        return;
      case 'random':
        fillRandom(words, BODY, PAGE_WORDS, hash(this.#seed, 0x7261_6e64, page));
        return;
      case 'duplicate':
        fillText(words, BODY, PAGE_WORDS, hash(this.#seed, 0x6475_7062, this.#original(page)));
        return;
    }
  }
}

function fillStamp(words: Uint32Array, key: number, kind: ContentClass): void {
  if (kind === 'random') fillRandom(words, HEADER_WORDS, BODY, key);
  else fillText(words, HEADER_WORDS, BODY, key);
}

/** Marsaglia's xorshift, 32 bits. */
function fillRandom(words: Uint32Array, from: number, to: number, key: number): void {
  let state = key | 1;
  for (let at = from; at < to; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
}

/** Fragments of eight letters, of which there are 1024. */
function fillText(words: Uint32Array, from: number, to: number, key: number): void {
  let state = key | 1;
  for (let at = from; at < to; at += 2) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const fragment = (state >>> 22) << 1;
    words[at] = FRAGMENTS[fragment]!;
    words[at + 1] = FRAGMENTS[fragment + 1]!;
  }
}

/** About as often as in English. */
const LETTERS = '     eeeeeetttttaaaaoooiiinnnsssrrrhhhddllluuccmmwffggyppbvk,.\n';

const FRAGMENTS = ((): Uint32Array => {
  // Of its own: Node's shared slab is not aligned to words.
  const text = new Uint8Array(1024 * 8);
  for (let at = 0; at < text.length; at += 1) {
    text[at] = LETTERS.charCodeAt(hash(0x6c65_7474, at) % LETTERS.length);
  }
  return new Uint32Array(text.buffer, text.byteOffset, text.length / 4);
})();

function hasMagic(bytes: Uint8Array): boolean {
  return wordAt(bytes, 0) === MAGIC;
}

function wordAt(bytes: Uint8Array, word: number): number {
  const at = word * 4;
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}
