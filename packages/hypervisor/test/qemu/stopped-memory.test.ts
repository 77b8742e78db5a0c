import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type PageBatch, PageKind } from '@vmferry/engine/guest';
import { blockIndex, bytes, PAGE_BYTES, pages, round } from '@vmferry/engine/units';
import { StoppedMemory } from '@vmferry/hypervisor/qemu/stopped-memory';
import { afterAll, beforeAll, expect, test } from 'vitest';

const PAGES = 64;
/** Pages that are zero in the process; the others are full of their own number. */
const ZERO = [5, 6, 40];
const block = blockIndex(0);

/** A process that has PAGES pages at an address that it prints, as QEMU has a guest's. */
const PROCESS = `
import ctypes, mmap, sys
memory = mmap.mmap(-1, ${PAGES} * 4096)
for page in range(${PAGES}):
    memory[page * 4096:(page + 1) * 4096] = bytes([0 if page in (${ZERO}) else page + 1]) * 4096
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
`;
let child: ReturnType<typeof spawn>;
let address = 0;

beforeAll(async () => {
  child = spawn('python3', ['-c', PROCESS], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  address = Number(line.toString());
});

afterAll(async () => {
  child.stdin!.end();
  await once(child, 'exit');
});

function open(options: { address?: number; hostPageBytes?: number; pid?: number } = {}) {
  const layout = {
    blocks: [
      {
        name: 'ram',
        bytes: bytes(PAGES * PAGE_BYTES),
        hostPageBytes: bytes(options.hostPageBytes ?? PAGE_BYTES),
      },
    ],
  };
  return StoppedMemory.open(
    options.pid ?? child.pid!,
    layout,
    new Map([['ram', options.address ?? address]]),
  );
}

function batch(numbers: readonly number[], content = (page: number) => page + 1) {
  const raw = numbers.filter((page) => !ZERO.includes(page));
  const made = {
    type: 'pages' as const,
    block,
    round: round(1),
    lane: 'bulk' as const,
    pages: Uint32Array.from(numbers),
    kinds: Uint8Array.from(numbers, (page) => (ZERO.includes(page) ? PageKind.zero : PageKind.raw)),
    content: Buffer.concat(raw.map((page) => Buffer.alloc(PAGE_BYTES, content(page)))),
    headroomBytes: bytes(0),
    released: 0,
    release: () => {
      made.released += 1;
    },
  };
  return made;
}

const range = (first: number, count: number) => ({ block, first: pages(first), count: pages(count) });

function trusted() {
  const memory = open()!;
  memory.discarded(range(0, PAGES));
  expect(memory.take(range(20, 1), round(1))).toBeUndefined();
  memory.admit(batch([0, 1, 2, 3]));
  return memory;
}

function taken(of: PageBatch | 'sent' | undefined) {
  if (of === undefined || of === 'sent') return of;
  const raw = [...of.pages].filter((_, index) => of.kinds[index] === PageKind.raw);
  expect(of.content.length).toBe(raw.length * PAGE_BYTES);
  for (const [at, page] of raw.entries()) {
    const content = of.content.subarray(at * PAGE_BYTES, (at + 1) * PAGE_BYTES);
    expect(content.every((byte) => byte === page + 1)).toBe(true);
  }
  expect([...of.pages].filter((_, index) => of.kinds[index] === PageKind.zero)).toEqual(
    [...of.pages].filter((page) => ZERO.includes(page)),
  );
  return [...of.pages];
}

test('pages of a proven block are read with their content, and each leaves once', () => {
  const memory = trusted();
  expect(taken(memory.take(range(4, 4), round(1)))).toEqual([4, 5, 6, 7]);
  expect(memory.take(range(4, 4), round(1))).toBe('sent');
  expect(taken(memory.take(range(0, 10), round(1)))).toEqual([8, 9]);
  memory.close();
});

test('what was taken is dropped from the stream, and what the stream brought is not taken', () => {
  const memory = trusted();
  memory.take(range(4, 3), round(1));
  memory.take(range(9, 1), round(1));
  const mixed = batch([3, 4, 5, 6, 7, 8, 9, 10]);
  expect(taken(memory.admit(mixed))).toEqual([3, 7, 8, 10]);
  const all = batch([4, 5]);
  expect(memory.admit(all)).toBeUndefined();
  expect(all.released).toBe(1);
  expect(memory.take(range(7, 2), round(1))).toBe('sent');
  memory.close();
});

test('a page that the destination has is not sent again', () => {
  const memory = open()!;
  memory.discarded(range(10, 10));
  memory.admit(batch([10, 11, 12, 13]));
  expect(taken(memory.take(range(0, 64), round(1)))).toEqual([14, 15, 16, 17, 18, 19]);
  expect(memory.take(range(0, 4), round(1))).toBeUndefined();
  memory.close();
});

test('one page that differs from the stream, and the process is not believed', () => {
  const memory = open()!;
  memory.discarded(range(0, PAGES));
  memory.admit(batch([0, 1, 2, 3], (page) => (page === 2 ? 99 : page + 1)));
  memory.admit(batch([10, 11, 12, 13, 14]));
  expect(memory.take(range(20, 1), round(1))).toBeUndefined();
  memory.close();
});

test('a wrong address is not believed, and pages that are all the same prove nothing', () => {
  const shifted = open({ address: address + PAGE_BYTES })!;
  shifted.discarded(range(0, PAGES));
  shifted.admit(batch([0, 1, 2, 3, 4]));
  expect(shifted.take(range(20, 1), round(1))).toBeUndefined();
  shifted.close();
  const same = open()!;
  same.discarded(range(0, PAGES));
  for (let i = 0; i < 9; i += 1) same.admit(batch([30]));
  expect(same.take(range(20, 1), round(1))).toBeUndefined();
  same.close();
});

test('an address that cannot be read ends the trust', () => {
  const memory = open({ address: 4096 })!;
  memory.discarded(range(0, PAGES));
  memory.admit(batch([0, 1, 2, 3]));
  expect(memory.take(range(20, 1), round(1))).toBeUndefined();
  memory.close();
});

test('huge pages, unknown blocks and processes that cannot be opened are left to QEMU', () => {
  expect(open({ hostPageBytes: 2 ** 21 })).toBeUndefined();
  expect(open({ pid: 2 ** 22 + 1 })).toBeUndefined();
  const layout = {
    blocks: [{ name: 'ram', bytes: bytes(4096), hostPageBytes: bytes(4096) }],
  };
  expect(StoppedMemory.open(child.pid!, layout, new Map())).toBeUndefined();
});
