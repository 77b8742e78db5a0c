// Speeds of the kernels on this machine, in MB/s. Needs `pnpm build`. The mix is 40 % zero, 30 % text-like and
// 30 % random pages.
import { randomFillSync } from 'node:crypto';
import { BufferPool } from '../dist/buffer-pool.js';
import { checksum, checksumInto, hash128, pack, scanZero, scanZeroAsync, unpack } from '../dist/kernels.js';

const pageBytes = 4096;
const batchBytes = 256 * 1024;
const batches = 512;
const inFlight = 4;

function textPage(page) {
  const words = 'page block round dirty guest switchover stream migration balloon virtio kernel'.split(' ');
  let text = '';
  while (text.length < page.length)
    text += `${words[Math.floor(Math.random() * words.length)]} ${Math.floor(Math.random() * 1000)} `;
  page.write(text, 'latin1');
}

function memory(kindOf) {
  // Written to, or all of it would be one and the same page of the kernel's.
  const all = Buffer.alloc(batchBytes * batches, 1).fill(0);
  for (let page = 0; page < all.length / pageBytes; page++) {
    const bytes = all.subarray(page * pageBytes, (page + 1) * pageBytes);
    const kind = kindOf(page);
    if (kind === 'text') textPage(bytes);
    if (kind === 'random') randomFillSync(bytes);
  }
  return Array.from({ length: batches }, (_, i) => all.subarray(i * batchBytes, (i + 1) * batchBytes));
}

const kinds = ['zero', 'text', 'random', 'zero', 'text', 'zero', 'random', 'zero', 'text', 'random'];
const inputs = {
  mix: memory((page) => kinds[page % 10]),
  text: memory(() => 'text'),
  random: memory(() => 'random'),
  zero: memory(() => 'zero'),
};

async function timed(label, bytes, body) {
  await body();
  const start = performance.now();
  const note = await body();
  const seconds = (performance.now() - start) / 1000;
  console.log(`${label.padEnd(34)} ${(bytes / 1e6 / seconds).toFixed(0).padStart(7)} MB/s  ${note ?? ''}`);
}

async function each(items, lanes, work) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++]);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

const total = batchBytes * batches;
for (const lanes of [1, inFlight]) {
  for (const [name, input] of Object.entries(inputs)) {
    for (const codec of ['none', 'lz4', 'lz4hc']) {
      if (codec === 'lz4hc' && name === 'zero') continue;
      const pool = new BufferPool({ bufferBytes: batchBytes, maxBuffers: lanes });
      await timed(`pack ${name} ${codec}, ${lanes} in flight`, total, async () => {
        let written = 0;
        await each(input, lanes, async (src) => {
          const dst = await pool.acquire();
          const { bytes } = await pack(src, dst.bytes, { codec });
          written += bytes;
          dst.release();
        });
        return `ratio ${(total / written).toFixed(2)}`;
      });
    }
    const packed = [];
    await each(input, lanes, async (src) => {
      const dst = Buffer.alloc(src.length);
      const result = await pack(src, dst, { codec: 'lz4' });
      packed.push({ bytes: dst.subarray(0, result.bytes), options: { ...result, rawBytes: src.length } });
    });
    const out = new BufferPool({ bufferBytes: batchBytes, maxBuffers: lanes });
    await timed(`unpack ${name}, ${lanes} in flight`, total, async () => {
      await each(packed, lanes, async ({ bytes, options }) => {
        const dst = await out.acquire();
        await unpack(bytes, dst.bytes, options);
        dst.release();
      });
    });
  }
}

const flags = new Uint8Array(batchBytes / pageBytes);
const words = new Uint32Array((batchBytes / pageBytes) * 4);
const sum = new Uint32Array(2);
await timed('checksum random, sync', total, () => {
  for (const src of inputs.random) checksumInto(src, 0, sum);
});
await timed('scanZero zero, sync', total, () => {
  for (const src of inputs.zero) scanZero(src, pageBytes, flags);
});
await timed('scanZero mix, sync', total, () => {
  for (const src of inputs.mix) scanZero(src, pageBytes, flags);
});
await timed('scanZeroAsync zero, 1 in flight', total, () =>
  each(inputs.zero, 1, (src) => scanZeroAsync(src, pageBytes, flags)),
);
await timed('hash128 random, 1 in flight', total, () =>
  each(inputs.random, 1, (src) => hash128(src, pageBytes, words)),
);

async function calls(label, times, body) {
  await body(times / 10);
  const start = performance.now();
  await body(times);
  const seconds = (performance.now() - start) / 1000;
  console.log(`${label.padEnd(34)} ${(times / seconds / 1000).toFixed(0).padStart(7)} thousand calls/s`);
}

const small = Buffer.alloc(64, 1);
const smallOut = Buffer.alloc(64);
await calls('checksumInto of 64 bytes', 2_000_000, async (times) => {
  for (let i = 0; i < times; i++) checksumInto(small, 0, sum);
});
await calls('checksum of 64 bytes', 2_000_000, async (times) => {
  for (let i = 0; i < times; i++) checksum(small);
});
for (const lanes of [1, inFlight]) {
  await calls(`pack of 64 bytes, ${lanes} in flight`, 100_000, (times) => {
    let left = times;
    const lane = async () => {
      const dst = Buffer.alloc(64);
      while (left-- > 0) await pack(smallOut, dst, { codec: 'none' });
    };
    return Promise.all(Array.from({ length: lanes }, lane));
  });
}
