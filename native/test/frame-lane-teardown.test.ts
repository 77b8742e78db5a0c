/** Ends of threads and processes with lanes open. On the raw table: what runs here does not load TypeScript. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';

const addonPath =
  process.env['VMFERRY_NATIVE_ADDON'] ??
  fileURLToPath(new URL('../build/Release/vmferry.node', import.meta.url));

/** Lanes on both ends of connections, one of which sends to one that has no buffers left. */
const openLanes = `
  const net = require('node:net');
  const fdOf = (socket) => socket._handle.fd;
  const lanesOn = (near, far, onEvent) => {
    const lanes = [near, far].map((socket, i) => {
      const lane = new table.FrameLane(fdOf(socket), i === 1, 1 << 20, Buffer.alloc(0), onEvent);
      socket.destroy();
      return lane;
    });
    lanes[1].lend(Buffer.alloc(1 << 20));
    for (let i = 0; i < 20; i++) lanes[0].send(Buffer.alloc(1 << 20), true);
    return lanes;
  };
  const openLanes = (onEvent) => new Promise((resolve) => {
    const server = net.createServer();
    server.listen(0, '127.0.0.1', () => {
      const near = net.connect(server.address().port, '127.0.0.1');
      server.once('connection', (far) => {
        server.close();
        const ready = () => resolve(lanesOn(near, far, onEvent));
        if (near.connecting) near.once('connect', ready); else ready();
      });
    });
  });
`;

function run(body: string) {
  const script = `const table = require(process.argv[1]); ${openLanes} ${body}`;
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['-e', script, addonPath], {
    encoding: 'utf8',
    timeout: 15_000,
  });
  return { stdout, stderr, status, signal };
}

test('threads that are terminated take their lanes with them', async () => {
  const threads = () => readdirSync('/proc/self/task').length;
  const body = `
    const { parentPort, workerData } = require('node:worker_threads');
    const table = require(workerData);
    ${openLanes}
    let came = 0;
    openLanes((kind) => { if (kind === 1 && ++came === 1) parentPort.postMessage('started'); });
    for (let i = 0; i < 5; i++) openLanes(() => undefined);
  `;
  const before = threads();
  for (let i = 0; i < 5; i++) {
    const each = new Worker(body, { eval: true, workerData: addonPath });
    await once(each, 'message');
    expect(await each.terminate()).toBe(1);
  }
  // Lanes left behind would be more than a hundred; Node itself may have started a few.
  expect(threads()).toBeLessThan(before + 20);
});

test('a process that exits does not wait for its lanes', () => {
  const result = run(
    `openLanes((kind) => { if (kind === 1) { console.log('message'); process.exit(7); } });`,
  );
  expect(result).toEqual({ stdout: 'message\n', stderr: '', status: 7, signal: null });
});

test('a lane keeps the process running until it ends, and no longer', () => {
  const result = run(`
    openLanes((kind) => { if (kind === 8) console.log('ended'); }).then((lanes) => {
      setImmediate(() => { for (const lane of lanes) { lane.terminate(); lane.terminate(); } });
    });
  `);
  expect(result).toEqual({ stdout: 'ended\nended\n', stderr: '', status: 0, signal: null });
});

test('what a handler throws is an uncaught exception, and the next event comes all the same', () => {
  const result = run(`
    process.on('uncaughtException', (error) => console.log(error.message));
    openLanes((kind) => {
      if (kind === 1) throw new Error('from the handler');
      if (kind === 8) console.log('ended');
    }).then((lanes) => {
      process.once('uncaughtException', () => { for (const lane of lanes) lane.terminate(); });
    });
  `);
  expect(result).toMatchObject({ stdout: 'from the handler\nended\nended\n', status: 0 });
});

test('lanes that nobody refers to any more are not lost', () => {
  const script = `
    const { setFlagsFromString } = require('node:v8');
    setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    let came = 0;
    openLanes((kind) => { if (kind === 1) { gc(); console.log('message'); process.exit(0); } }).then(() => gc());
  `;
  expect(run(script)).toMatchObject({ stdout: 'message\n', status: 0 });
});

test('the addon checks every argument of a lane itself, too', () => {
  const table = createRequire(import.meta.url)(addonPath) as {
    FrameLane: new (...args: unknown[]) => unknown;
  };
  const nothing = new Uint8Array(0);
  const ignore = () => undefined;
  const wrong: unknown[][] = [
    [],
    ['0', true, 1, nothing, ignore],
    [-1, true, 1, nothing, ignore],
    [2 ** 31, true, 1, nothing, ignore],
    [0, 'server', 1, nothing, ignore],
    [0, true, 0, nothing, ignore],
    [0, true, 2 ** 31, nothing, ignore],
    [0, true, 1, 'prefix', ignore],
    [0, true, 1, nothing, 'no function'],
  ];
  for (const args of wrong) {
    expect(() => new table.FrameLane(...args), args.map(String).join()).toThrow(
      expect.objectContaining({ code: 2 }),
    );
  }
});
