/** YAML or JSON, checked: every fault with its place and line, all in one error. */
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { ScenarioError } from './errors.ts';

const MAX_TEXT = 4 * 1024 * 1024;
const MAX_ALIASES = 100;

export class CheckedDocument {
  readonly content: unknown;
  readonly #file: string;
  readonly #document: Document;
  readonly #lines = new LineCounter();

  /** @throws ScenarioError when it is not YAML; `file` is for messages */
  constructor(text: string, file: string) {
    this.#file = file;
    if (text.length > MAX_TEXT) throw this.#error('it is bigger than 4 MiB');
    this.#document = parseDocument(text, { lineCounter: this.#lines, uniqueKeys: true });
    const broken = this.#document.errors[0];
    if (broken) throw this.#error(broken.message.trim(), broken);
    try {
      this.content = this.#document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (cause) {
      throw this.#error(cause instanceof Error ? cause.message : String(cause), cause);
    }
  }

  /** @param at where in the document `content` is, for messages */
  check<Schema extends z.ZodType>(
    schema: Schema,
    content: unknown,
    at: readonly PropertyKey[] = [],
  ): z.output<Schema> {
    const parsed = schema.safeParse(content);
    if (parsed.success) return parsed.data;
    throw this.faults(parsed.error.issues, at);
  }

  faults(issues: readonly z.core.$ZodIssue[], at: readonly PropertyKey[] = []): ScenarioError {
    const words = issues.flatMap((issue) => {
      const path = [...at, ...issue.path];
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map(
          (key) => `unknown key ${dotted([...path, key])}${this.#lineOf([...path, key])}`,
        );
      if (path.length === 0) return ['a file of keys and values is needed'];
      const message = this.#document.hasIn(path) ? issue.message : `is missing: ${issue.message}`;
      return [`${dotted(path)}: ${message}${this.#lineOf(path)}`];
    });
    return this.#error(words.join('; '));
  }

  #lineOf(path: readonly PropertyKey[]): string {
    for (let length = path.length; length > 0; length -= 1) {
      const node: unknown = this.#document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return ` (line ${this.#lines.linePos(node.range[0]).line})`;
    }
    return '';
  }

  #error(why: string, cause?: unknown): ScenarioError {
    return new ScenarioError(
      `${this.#file}: ${why}`,
      'Correct the file; docs/memsim.md has all keys, scenario.schema.json has them for editors.',
      cause === undefined ? {} : { cause },
    );
  }
}

function dotted(keys: readonly PropertyKey[]): string {
  return keys
    .map((key, index) => (typeof key === 'number' ? `[${key}]` : `${index === 0 ? '' : '.'}${String(key)}`))
    .join('');
}
