import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LineSplitter } from '../../../src/qemu/qmp/lines.ts';

const text = fc.string({ unit: 'grapheme' }).filter((line) => !/[\r\n]/.test(line));

describe('a line splitter', () => {
  it('gives the same lines wherever the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(text),
        text,
        fc.array(fc.nat({ max: 20 }), { minLength: 1 }),
        (lines, rest, sizes) => {
          const bytes = Buffer.from(lines.map((line) => `${line}\r\n`).join('') + rest);
          const splitter = new LineSplitter(1 << 20);
          const found: string[] = [];
          for (let at = 0, n = 0; at < bytes.length; n++) {
            const size = sizes[n % sizes.length]! + (n % 2);
            found.push(...splitter.push(bytes.subarray(at, at + size)));
            at += size;
          }
          expect(found).toEqual(lines);
          expect(splitter.partial).toBe(rest !== '');
        },
      ),
    );
  });

  it('refuses a line past its limit, whole or in parts, and counts each line anew', () => {
    const long = Buffer.from('123456789\n');
    expect(() => [...new LineSplitter(8).push(long)]).toThrow(RangeError);
    const splitter = new LineSplitter(8);
    expect([...splitter.push(Buffer.from('12345678\n1234567'))]).toEqual(['12345678']);
    expect([...splitter.push(Buffer.from('8'))]).toEqual([]);
    expect(() => [...splitter.push(Buffer.from('9'))]).toThrow('longer than 8 bytes');
  });
});
