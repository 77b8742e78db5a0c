/**
 * Throughput of the stream codec in MB/s, on the built package (`pnpm build` first):
 *
 *     node packages/hypervisor/test/qemu/support/stream/bench.mjs [CHUNK_KIB]
 */
import { StreamDecoder } from '@vmferry/hypervisor/qemu/stream/decoder';
import { StreamEncoder } from '@vmferry/hypervisor/qemu/stream/encoder';

const BATCH_PAGES = 256;
const PAGES = 65_536;
const SECTION_PAGES = 4096;
const chunkBytes = Number(process.argv[2] ?? 64) * 1024;

function u64(n) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(n));
  return out;
}

/** A pre-copy stream of one block whose pages are all raw, or all zero. */
function stream(zero) {
  const name = Buffer.concat([Buffer.from([6]), Buffer.from('pc.ram')]);
  const id = Buffer.from([0, 0, 0, 2]);
  const close = Buffer.concat([u64(0x10), Buffer.from([0x7e]), id]);
  const parts = [Buffer.from('5145564d00000003', 'hex')];
  parts.push(Buffer.from([1]), id, Buffer.from('\x03ram', 'latin1'), Buffer.from('0000000000000004', 'hex'));
  parts.push(u64(PAGES * 4096 + 4), name, u64(PAGES * 4096), close);
  const content = Buffer.alloc(4096, 0x5a);
  for (let page = 0; page < PAGES; page++) {
    const first = page % SECTION_PAGES === 0;
    if (first) parts.push(Buffer.from([2]), id);
    parts.push(u64(page * 4096 + (zero ? 0x02 : 0x08) + (page === 0 ? 0 : 0x20)));
    if (page === 0) parts.push(name);
    parts.push(zero ? Buffer.from([0]) : content);
    if (page % SECTION_PAGES === SECTION_PAGES - 1) parts.push(close);
  }
  parts.push(Buffer.from([3]), id, close);
  return Buffer.concat(parts);
}

const spare = [];
function allocate(bytes) {
  const content = spare.pop() ?? Buffer.allocUnsafeSlow(bytes);
  return { content, release: () => spare.push(content) };
}

function decode(bytes, each) {
  const decoder = new StreamDecoder({ batchPages: BATCH_PAGES, allocate });
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    decoder.push(bytes.subarray(at, at + chunkBytes));
    for (let item = decoder.next(); item !== undefined; item = decoder.next()) each(item);
  }
  if (decoder.finish().state !== 'opaque') throw new Error('the stream was not understood');
}

function report(what, work, bytes = PAGES * 4096) {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 7; i++) {
    const began = process.hrtime.bigint();
    work();
    best = Math.min(best, Number(process.hrtime.bigint() - began));
  }
  console.log(`${what.padEnd(28)} ${Math.round((bytes / best) * 1000)} MB/s of guest memory`);
}

for (const zero of [false, true]) {
  const bytes = stream(zero);
  const kind = zero ? 'zero' : 'raw';
  report(`decode ${kind} pages`, () =>
    decode(bytes, (item) => {
      if (item.type === 'pages') item.release();
    }),
  );
  const encoder = new StreamEncoder();
  const batches = [];
  decode(bytes, (item) => {
    if (item.type === 'opaque') encoder.opaque(item.bytes);
    else if (item.type === 'pages') batches.push(item);
  });
  const out = Buffer.allocUnsafeSlow(encoder.maxEncodedBytes(batches[0]));
  report(`encode ${kind} pages`, () => {
    for (const batch of batches) encoder.encodePages(batch, out);
  });
  for (const batch of batches) batch.release();
  report(`decode and encode ${kind} pages`, () =>
    decode(bytes, (item) => {
      if (item.type !== 'pages') return;
      encoder.encodePages(item, out);
      item.release();
    }),
  );
}
