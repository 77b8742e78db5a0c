/** YAML or JSON, checked: every fault with its place and line, all in one error. */
import { messageOf } from '@vmferry/engine/errors';
import { isNode, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';

const MAX_ALIASES = 100;

export interface DocumentOptions {
  /** For messages. */
  readonly file: string;
  /** Characters. */
  readonly most: number;
  /** What is said where the document is no list of keys and values. */
  readonly needed: string;
  readonly error: (message: string, cause?: unknown) => Error;
}

export class CheckedDocument {
  readonly content: unknown;
  readonly #options: DocumentOptions;
  readonly #document: ReturnType<typeof parseDocument>;
  readonly #lines = new LineCounter();

  /** @throws what `error` makes, when it is not YAML */
  constructor(text: string, options: DocumentOptions) {
    this.#options = options;
    if (text.length > options.most) throw this.#error(`it is bigger than ${options.most / 1024 ** 2} MiB`);
    this.#document = parseDocument(text, {
      lineCounter: this.#lines,
      uniqueKeys: true,
      merge: true,
      prettyErrors: false,
    });
    // Only a tag that means nothing is a warning, and it would be passed over.
    const broken = this.#document.errors[0] ?? this.#document.warnings[0];
    if (broken) {
      const several = broken.code === 'MULTIPLE_DOCS';
      const what = several ? 'another document begins, and one is needed' : broken.message.trim();
      throw this.#error(`${what} (line ${this.#lines.linePos(broken.pos[0]).line})`, broken);
    }
    try {
      this.content = this.#document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (cause) {
      throw this.#error(messageOf(cause), cause);
    }
  }

  /**
   * @param at where in the document `content` is, for messages
   * @throws what `error` makes, with all faults in one message
   */
  check<Schema extends z.ZodType>(
    schema: Schema,
    content: unknown,
    at: readonly PropertyKey[] = [],
  ): z.output<Schema> {
    const parsed = schema.safeParse(content);
    if (parsed.success) return parsed.data;
    const words = parsed.error.issues.flatMap((issue) => this.#wordsOf(issue, [...at, ...issue.path]));
    throw this.#error(words.join('; '));
  }

  /** One thing that is wrong at a place of the document, as an error. */
  fault(path: readonly PropertyKey[], what: string): Error {
    return this.#error(`${dotted(path)}: ${what}${this.#lineOf(path)}`);
  }

  #wordsOf(issue: z.core.$ZodIssue, path: readonly PropertyKey[]): string[] {
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map((key) => `unknown key ${dotted([...path, key])}${this.#lineOf([...path, key])}`);
    if (path.length === 0) return [this.#options.needed];
    const kinds = kindsOf(issue);
    const there = isThere(this.content, path);
    const what =
      kinds === undefined
        ? `${there ? '' : 'is missing: '}${issue.message}`
        : `${there ? 'there is no such kind' : 'is missing'}; there are ${kinds.join(', ')}`;
    return [`${dotted(path)}: ${what}${this.#lineOf(path)}`];
  }

  #lineOf(path: readonly PropertyKey[]): string {
    for (let length = path.length; length > 0; length -= 1) {
      const node: unknown = this.#document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return ` (line ${this.#lines.linePos(node.range[0]).line})`;
    }
    return '';
  }

  #error(why: string, cause?: unknown): Error {
    return this.#options.error(`${this.#options.file}: ${why}`, cause);
  }
}

/** What a `kind` may be, where that is what is wrong. */
function kindsOf(issue: z.core.$ZodIssue): readonly string[] | undefined {
  if (issue.code !== 'invalid_union' || issue.path.at(-1) !== 'kind') return undefined;
  return [...issue.message.matchAll(/'([^']+)'/g)].map(([, kind]) => kind!);
}

/** In what the document comes to: what is merged or repeated by an alias lies elsewhere in its text. */
function isThere(content: unknown, path: readonly PropertyKey[]): boolean {
  let here = content;
  for (const key of path) {
    if (typeof here !== 'object' || here === null || !Object.hasOwn(here, key)) return false;
    here = (here as Record<PropertyKey, unknown>)[key];
  }
  return true;
}

function dotted(keys: readonly PropertyKey[]): string {
  return keys
    .map((key, index) => (typeof key === 'number' ? `[${key}]` : `${index === 0 ? '' : '.'}${String(key)}`))
    .join('');
}
