/** What becomes of connections and domains that nobody holds, and of threads and processes with some open. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { expect, test } from 'vitest';
import { addonPath, rawHead, runRaw, testUri } from './support.ts';

/** MiB: under the address sanitizer everything takes more room. */
const most = (mib: number) => (process.env['ASAN_OPTIONS'] === undefined ? mib : 3 * mib);

/** Under the address sanitizer: what is freed is to be had again soon, so that memory can be measured. */
const measured = {
  ASAN_OPTIONS: `${process.env['ASAN_OPTIONS'] ?? ''}:quarantine_size_mb=1:thread_local_quarantine_size_kb=16`,
};

const gcHead = `
  const { setFlagsFromString } = require('node:v8');
  setFlagsFromString('--expose-gc');
  const gc = require('node:vm').runInNewContext('gc');
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const collect = async () => { for (let i = 0; i < 4; i++) { gc(); await turn(); } };
`;

test('ten thousand domains that are opened and dropped leave nothing behind', () => {
  const uri = testUri();
  const result = runRaw(
    `${gcHead}
    (async () => {
      const c = await open(${JSON.stringify(uri)});
      const some = async (count) => {
        for (let done = 0; done < count; done += 100) {
          const found = await Promise.all(Array.from({ length: 100 }, () => call('lookupByName', c, 'one')));
          // Half are freed, the others left to the collector.
          found.forEach((domain, i) => { if (i % 2) libvirt.free(domain.handle); });
        }
        await collect();
      };
      await some(10000);
      const before = process.memoryUsage().rss;
      for (let i = 0; i < 5; i++) await some(10000);
      const grown = process.memoryUsage().rss - before;
      // libvirt's own count of what still holds the connection.
      const left = await call('close', c);
      console.log(JSON.stringify({ left, grownMiB: Math.round(grown / 2 ** 20) }));
    })();
  `,
    measured,
  );
  expect(result).toMatchObject({ stderr: '', status: 0 });
  const { left, grownMiB } = JSON.parse(result.stdout);
  expect(left).toBe(0);
  // Fifty thousand that stay are 37 MiB; the heap itself sways by five.
  expect(grownMiB).toBeLessThan(most(12));
}, 60_000);

test('connections that nobody holds are closed', () => {
  const uri = testUri();
  const result = runRaw(
    `${gcHead}
    const { readdirSync } = require('node:fs');
    (async () => {
      const threads = () => readdirSync('/proc/self/task').length;
      const some = async () => {
        for (let i = 0; i < 300; i++) {
          const c = await open(${JSON.stringify(uri)});
          await call('lookupByName', c, 'one');
          if (i % 20 === 0) await collect();
        }
        await collect();
        // Idle threads end.
        await new Promise((resolve) => setTimeout(resolve, 2500));
      };
      await some();
      const [before, rss] = [threads(), process.memoryUsage().rss];
      await some();
      const grownMiB = Math.round((process.memoryUsage().rss - rss) / 2 ** 20);
      console.log(JSON.stringify({ threads: threads() - before, grownMiB }));
    })();
  `,
    measured,
  );
  expect(result).toMatchObject({ stderr: '', status: 0 });
  const { threads, grownMiB } = JSON.parse(result.stdout);
  expect(threads).toBeLessThanOrEqual(1);
  expect(grownMiB).toBeLessThan(most(10));
}, 60_000);

test('a connection is collected whatever it was opened with, once nobody has it or its domains', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const uri = testUri({ user: 'astro', password: 'naut' });
  const auth = {
    answer: (asked: readonly { type: string }[]) =>
      asked.map((a) => (a.type === 'auth-name' ? 'astro' : 'naut')),
  };
  const { signal } = new AbortController();
  const use = async () => {
    const connection = await LibvirtConnection.open(uri, { auth, signal });
    connection.on('close', () => {});
    const [domain] = await connection.domains();
    await domain!.state();
    await (await connection.subscribe('lifecycle', () => {})).close();
    return new WeakRef(connection);
  };
  const connection = await use();
  await expect
    .poll(() => {
      gc();
      return connection.deref() === undefined;
    })
    .toBe(true);
});

const busy = `
  let came = 0;
  (async () => {
    const c = await open('test:///default');
    await call('subscribe', c, 0, undefined, () => { came++; });
    const d = await call('lookupByName', c, 'test');
    worker.parentPort?.postMessage('started');
    const on = () => call('list', c, 0).then(on);
    for (let i = 0; i < 10; i++) on();
    for (;;) { await call('suspend', d.handle).catch(() => {}); await call('resume', d.handle).catch(() => {}); }
  })();
`;

test('worker threads have connections of their own, all at once', async () => {
  const body = `${rawHead}
    (async () => {
      for (let i = 0; i < 20; i++) {
        const c = await open('test:///default');
        for (let j = 0; j < 10; j++) await call('lookupByName', c, 'test');
        const left = await call('close', c);
        // The default host is shared in a process; only our own references count.
        if (typeof left !== 'number') throw new Error('close');
      }
      worker.parentPort.postMessage('done');
    })();
  `;
  for (let wave = 0; wave < 3; wave++) {
    const done = Array.from({ length: 4 }, async () => {
      const each = new Worker(body, { eval: true, workerData: addonPath });
      const exit = once(each, 'exit');
      expect((await once(each, 'message'))[0]).toBe('done');
      expect(await exit).toEqual([0]);
    });
    await Promise.all(done);
  }
});

test('the addon outlives the only threads that had it, and the process ends as if it had never been there', () => {
  const body = `
    const { Worker } = require('node:worker_threads');
    const { once } = require('node:events');
    (async () => {
      for (let i = 0; i < 3; i++) {
        const each = new Worker(${JSON.stringify(rawHead + busy)}, { eval: true, workerData: process.argv[1] });
        await once(each, 'message');
        await each.terminate();
      }
      // Time for whatever would go on in code that is not there any more.
      setTimeout(() => console.log('still there'), 300);
    })();
  `;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', body, addonPath], {
    encoding: 'utf8',
    timeout: 15_000,
  });
  expect({ stdout, stderr, status }).toEqual({ stdout: 'still there\n', stderr: '', status: 0 });
});

test('threads that are terminated with calls and subscriptions open take them along', async () => {
  const threads = () => readdirSync('/proc/self/task').length;
  const before = threads();
  // What a call of theirs cannot throw any more must not end the process: often enough to be met.
  for (let i = 0; i < 24; i++) {
    const each = new Worker(rawHead + busy, { eval: true, workerData: addonPath });
    await once(each, 'message');
    expect(await each.terminate()).toBe(1);
  }
  // Each would leave four behind; libvirt's event loop stays, and Node itself may have started a few.
  await expect.poll(threads, { timeout: 10_000 }).toBeLessThan(before + 10);
});

test('a thread that is terminated while a daemon says nothing does not wait for it', async () => {
  const body = `${rawHead}
    const path = require('node:path').join(require('node:os').tmpdir(), 'vmferry-silent-' + process.pid);
    const silent = require('node:net').createServer(() => worker.parentPort.postMessage('asked')).listen(path, () => {
      open('qemu+unix:///system?socket=' + path);
    });
  `;
  const each = new Worker(body, { eval: true, workerData: addonPath });
  await once(each, 'message');
  expect(await each.terminate()).toBe(1);
});

test('a process that exits does not wait for its calls', () => {
  const result = runRaw(`${busy} setTimeout(() => { console.log(came > 0); process.exit(7); }, 300);`);
  expect(result).toEqual({ stdout: 'true\n', stderr: '', status: 7, signal: null });
});

test('libvirt prints nothing of its own', () => {
  const result = runRaw(`
    (async () => {
      // Not test:///nonexistent: the parser of its file, libxml2, has its own way.
      for (const uri of ['qemu+unix:///system?socket=/nonexistent', 'nonsense:']) {
        await open(uri).catch((error) => console.log(error.message.length > 0));
      }
    })();
  `);
  expect(result).toEqual({ stdout: 'true\ntrue\n', stderr: '', status: 0, signal: null });
});
