/** Runs the decoder and tells what it found in the model's words. */
import type { PageBatch } from '@vmferry/engine/guest';
import { PageKind } from '@vmferry/engine/guest';
import type { CommandNotice } from '../../../../src/qemu/stream/command.ts';
import type { DecodedItem } from '../../../../src/qemu/stream/decoded.ts';
import { StreamDecoder } from '../../../../src/qemu/stream/decoder.ts';
import { digest, type Told } from './model.ts';

/** Buffers that know whether each was given back, once. */
export class CheckedPool {
  taken = 0;
  released = 0;

  readonly allocate = (bytes: number): { content: Uint8Array; release(): void } => {
    this.taken++;
    let free = false;
    return {
      content: new Uint8Array(bytes),
      release: () => {
        if (free) throw new Error('a buffer was released twice');
        free = true;
        this.released++;
      },
    };
  };
}

/** Cuts bytes at the given places (any order, any numbers). */
export function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((n) => n % (bytes.length + 1)))].sort((a, b) => a - b);
  const out: Uint8Array[] = [];
  let from = 0;
  for (const to of [...at, bytes.length]) {
    out.push(bytes.subarray(from, to));
    from = to;
  }
  return out;
}

/** All items, batches not released. */
export function decodeAll(decoder: StreamDecoder, chunks: readonly Uint8Array[]): DecodedItem[] {
  const items: DecodedItem[] = [];
  for (const chunk of chunks) items.push(...decoder.decode(chunk));
  return items;
}

export function decode(bytes: Uint8Array, options: { batchPages?: number } = {}): DecodedItem[] {
  return decodeAll(new StreamDecoder({ batchPages: options.batchPages ?? 8 }), [bytes]);
}

export function pageContents(batch: PageBatch): Uint8Array[] {
  let at = 0;
  return Array.from(batch.kinds, (kind) => {
    if (kind === PageKind.zero) return new Uint8Array(4096);
    at += 4096;
    return batch.content.subarray(at - 4096, at);
  });
}

export function tell(items: readonly DecodedItem[]): Told[] {
  const told: Told[] = [];
  for (const item of items) {
    if (item.type === 'opaque') {
      const hex = Buffer.from(item.bytes).toString('hex');
      const last = told.at(-1);
      if (last?.type === 'opaque') told[told.length - 1] = { type: 'opaque', hex: last.hex + hex };
      else told.push({ type: 'opaque', hex });
    } else if (item.type === 'pages') {
      for (const [i, content] of pageContents(item).entries()) {
        told.push({ type: 'page', block: item.block, page: item.pages[i]!, content: digest(content) });
      }
    } else if (item.type === 'ram-layout') {
      const text = item.layout.blocks.map((b) => `${b.name} ${b.bytes} ${b.hostPageBytes}`);
      told.push({ type: 'layout', text: text.join(', ') });
    } else if (item.type === 'command') told.push({ type: 'command', text: commandText(item) });
    else if (item.type === 'verbatim') told.push({ type: 'verbatim', text: item.why });
    else told.push({ type: item.type });
  }
  return told;
}

function commandText(notice: CommandNotice): string {
  switch (notice.name) {
    case 'ping':
      return `ping ${notice.value}`;
    case 'packaged':
      return `packaged ${notice.bytes}`;
    case 'discard':
      return `discard ${notice.blockName} ${notice.ranges.join(' ')}`;
    case 'unknown':
      return `unknown ${notice.command}`;
    default:
      return notice.name;
  }
}
