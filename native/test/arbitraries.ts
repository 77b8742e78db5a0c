import fc from 'fast-check';

export const pageBytes = 4096;

/** What a guest's memory is made of: runs of one byte, repeated phrases, noise, in any order. */
export const memoryLike: fc.Arbitrary<Uint8Array> = fc
  .array(
    fc.oneof(
      fc.tuple(fc.nat(255), fc.integer({ min: 0, max: 9000 })).map(([byte, n]) => Buffer.alloc(n, byte)),
      fc
        .tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.nat(300))
        .map(([phrase, times]) => Buffer.concat(Array.from({ length: times }, () => phrase))),
      fc.uint8Array({ maxLength: 600, size: 'max' }).map((bytes) => Buffer.from(bytes)),
    ),
    { maxLength: 8 },
  )
  .map((parts) => new Uint8Array(Buffer.concat(parts)));

/** The same bytes on a SharedArrayBuffer, at an odd offset. */
export function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length + 3), 3);
  copy.set(bytes);
  return copy;
}
