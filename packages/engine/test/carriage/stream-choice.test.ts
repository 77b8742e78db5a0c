import { type Passage, StreamChoice } from '@vmferry/engine/carriage/stream-choice';
import { blockIndex } from '@vmferry/engine/units';
import fc from 'fast-check';
import { expect, test } from 'vitest';

const block = blockIndex(0);
const at = (...pages: number[]) => Uint32Array.from(pages);

test('batches of different pages spread over the streams by what is on its way', () => {
  const choice = new StreamChoice(3);
  const streams = [0, 1000, 2000].map((page) => choice.board(block, at(page), 4096)!.stream);
  expect(new Set(streams).size).toBe(3);
});

test('a page whose older copy is on its way takes the same stream, and any other once it has landed', () => {
  const choice = new StreamChoice(2);
  const first = choice.board(block, at(5), 4096)!;
  expect(choice.board(block, at(6), 1)!.stream).toBe(first.stream);
  choice.landed(first);
  expect(choice.board(block, at(5_000), 1)!.stream).not.toBe(first.stream);
});

test('a batch whose pages are on their way on two streams has to wait', () => {
  const choice = new StreamChoice(2);
  const a = choice.board(block, at(0), 4096)!;
  const b = choice.board(block, at(1_000), 4096)!;
  expect(a.stream).not.toBe(b.stream);
  expect(choice.board(block, at(0, 1_000), 8192)).toBeUndefined();
  choice.landed(a);
  expect(choice.board(block, at(0, 1_000), 8192)?.stream).toBe(b.stream);
});

test('two copies of a page are never on their way on two streams', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.array(
        fc.tuple(fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 5 }), fc.nat(9)),
        {
          maxLength: 80,
        },
      ),
      (streams, steps) => {
        const choice = new StreamChoice(streams);
        const flying: { passage: Passage; pages: number[] }[] = [];
        for (const [pages, land] of steps) {
          const passage = choice.board(block, at(...pages), pages.length);
          if (passage) {
            for (const other of flying) {
              const shared = other.pages.some((page) => pages.includes(page));
              if (shared) expect(other.passage.stream).toBe(passage.stream);
            }
            flying.push({ passage, pages });
          }
          if (land > 4 && flying.length > 0)
            choice.landed(flying.splice(land % flying.length, 1)[0]!.passage);
        }
        for (const { passage } of flying.splice(0)) choice.landed(passage);
        expect(choice.board(block, at(0, 64, 128, 192, 256, 320, 384), 7)).toBeDefined();
      },
    ),
  );
});
