import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadGuest } from '../src/guest-file/load.ts';
import { loadScenario } from '../src/scenario/load.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-read-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string | Uint8Array) => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

test.each([
  ['a directory', folder, /it is a directory/],
  ['a device', '/dev/zero', /it is no file/],
  ['nothing', join(folder, 'none.yaml'), /there is no such file/],
  ['Latin-1', file('latin.yaml', Buffer.from('name: caf\u00e9', 'latin1')), /it is no UTF-8 text/],
  ['UTF-16', file('utf16.yaml', Buffer.from('\ufeffname: a', 'utf16le')), /it is no UTF-8 text/],
  ['a big file', file('big.yaml', new Uint8Array(5 * 1024 ** 2)), /it is bigger than/],
])('%s is neither a guest nor a scenario, and is named', async (_, path, why) => {
  await expect(loadGuest(path, '.')).rejects.toMatchObject({
    code: 'E_CONFIG',
    message: expect.stringMatching(why),
  });
  await expect(loadGuest(path, '.')).rejects.toThrow(`cannot read the guest file ${path}: `);
  expect(() => loadScenario(path)).toThrow(why);
  expect(() => loadScenario(path)).toThrow(`cannot read the scenario ${path}: `);
});

test('a guest file may begin with a mark of its encoding, and end its lines as Windows does', async () => {
  const path = file('windows.yaml', '\ufeffname: a\r\nmemory: 4MiB\r\n');
  expect((await loadGuest(path, '.')).file).toMatchObject({ name: 'a', memory: 4 * 1024 ** 2 });
});
