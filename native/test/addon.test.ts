import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { features, requireFeature } from '@vmferry/native/features';
import { afterEach, describe, expect, test, vi } from 'vitest';

const addonPath =
  process.env['VMFERRY_NATIVE_ADDON'] ??
  fileURLToPath(new URL('../build/Release/vmferry.node', import.meta.url));

/** Runs on the raw table, because a worker thread does not load TypeScript. */
function worker(body: string): Worker {
  const head = `
    const { parentPort, workerData } = require('node:worker_threads');
    const table = require(workerData);
    const job = (start) => new Promise((resolve, reject) => start((code, ...values) => code === 0 ? resolve(values) : reject(new Error(values[4]))));
  `;
  return new Worker(head + body, { eval: true, workerData: addonPath });
}

describe('the addon', () => {
  test('works in several worker threads at once and unloads with them', async () => {
    const body = `
      (async () => {
        for (let round = 0; round < 50; round++) {
          const src = Buffer.alloc(50_000, 'worker ' + round);
          const dst = Buffer.alloc(50_000);
          const [bytes, codec, hi, lo] = await job((settle) => table.pack(src, dst, 1, 1, settle));
          const back = Buffer.alloc(50_000);
          await job((settle) => table.unpack(dst.subarray(0, bytes), back, codec, 50_000, hi, lo, settle));
          if (!back.equals(src)) throw new Error('round trip');
          table.checksum(dst.subarray(0, bytes), 0);
          if (table.sum[0] !== hi || table.sum[1] !== lo) throw new Error('sum');
        }
        parentPort.postMessage('done');
      })();
    `;
    for (let wave = 0; wave < 3; wave++) {
      const workers = Array.from({ length: 4 }, () => worker(body));
      const messages = await Promise.all(
        workers.map(async (each) => {
          const exit = once(each, 'exit');
          const [message] = await once(each, 'message');
          expect(await exit).toEqual([0]);
          return message;
        }),
      );
      expect(messages).toEqual(Array(4).fill('done'));
    }
  });

  test('survives threads that are terminated with work under way', async () => {
    const body = `
      const src = Buffer.alloc(1 << 20, 'text that takes the slow compressor a while ');
      for (let i = 0; i < 12; i++) table.pack(src, Buffer.alloc(src.length), 2, 1, () => parentPort.postMessage('late'));
      const socket = new table.PacketSocket('lo', true);
      socket.receive(Buffer.alloc(2000), 50, () => undefined);
      parentPort.postMessage('started');
    `;
    for (let i = 0; i < 5; i++) {
      const each = worker(body);
      await once(each, 'message');
      expect(await each.terminate()).toBe(1);
    }
  });

  test('reports what a callback throws as an uncaught exception', () => {
    const script = `
      const table = require(process.argv[1]);
      process.on('uncaughtException', (error) => { console.log(error.message); });
      table.pack(Buffer.alloc(1), Buffer.alloc(1), 0, 1, () => { throw new Error('from the callback'); });
    `;
    const { stdout, status } = spawnSync(process.execPath, ['-e', script, addonPath], { encoding: 'utf8' });
    expect({ stdout, status }).toEqual({ stdout: 'from the callback\n', status: 0 });
  });

  test('checks every argument itself, too', () => {
    const table = createRequire(import.meta.url)(addonPath) as Record<
      string,
      (...args: unknown[]) => unknown
    >;
    const bytes = new Uint8Array(8192);
    const settle = () => undefined;
    const wrong: [string, unknown[]][] = [
      ['pack', []],
      ['pack', [bytes, bytes, 3, 1, settle]],
      ['pack', [bytes, bytes, 1, 1, 'no function']],
      ['pack', [bytes, bytes, 1, 0, settle]],
      ['pack', [bytes, bytes, 1, 65_538, settle]],
      ['pack', [{ length: 4 }, bytes, 1, 1, settle]],
      ['unpack', [bytes, bytes, 2, 1, 0, 0, settle]],
      ['unpack', [bytes, bytes, 1, -1, 0, 0, settle]],
      ['unpack', [bytes, bytes, 1, 2 ** 60, 0, 0, settle]],
      ['unpack', [bytes, bytes, 1, 1, 2 ** 32, 0, settle]],
      ['checksum', [new Float32Array(1), 0]],
      ['checksum', [bytes, '0']],
      ['checksumAsync', [new Float32Array(1), settle]],
      ['checksumAsync', [bytes, 'no function']],
      ['scanZero', [bytes, 0, bytes]],
      ['scanZero', [bytes, 3, bytes]],
      ['scanZero', [bytes, 4096, new Uint8Array(1)]],
      ['scanZeroAsync', [bytes, 4096, new Uint8Array(1), settle]],
      ['hash128', [bytes, 0, new Uint32Array(8), settle]],
      ['hash128', [bytes, 4096, new Uint8Array(8), settle]],
    ];
    for (const [name, args] of wrong) {
      expect(() => table[name]?.(...args), `${name}(${args.map(String).join()})`).toThrow(
        expect.objectContaining({ code: 2 }),
      );
    }
  });
});

describe('features', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.resetModules();
  });

  test('tell what was built in', () => {
    expect(features).toMatchObject({ lz4: true, xxhash: true, libvirt: true });
    expect(() => requireFeature('lz4')).not.toThrow();
  });

  test('say how to build an addon that is not there', async () => {
    vi.resetModules();
    vi.stubEnv('VMFERRY_NATIVE_ADDON', '/nonexistent/vmferry.node');
    const { pack } = await import('@vmferry/native/kernels');
    await expect(pack(new Uint8Array(1), new Uint8Array(1), { codec: 'none' })).rejects.toMatchObject({
      code: 'E_NATIVE_MISSING',
      message: "the native addon is not built: run 'make build'",
    });
  });

  test('say which file does not load', async () => {
    vi.resetModules();
    const folder = mkdtempSync(join(tmpdir(), 'vmferry-'));
    const broken = join(folder, 'broken.node');
    writeFileSync(broken, 'no shared object');
    vi.stubEnv('VMFERRY_NATIVE_ADDON', broken);
    try {
      const { checksum } = await import('@vmferry/native/kernels');
      expect(() => checksum(new Uint8Array(1))).toThrow(
        expect.objectContaining({
          code: 'E_NATIVE_MISSING',
          message: `the native addon ${broken} does not load: run 'make build'`,
        }),
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
