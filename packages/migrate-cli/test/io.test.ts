import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { write } from '../src/io.ts';

/** As what Node makes of standard output: what goes wrong is an event as well. */
function failing(code: string): Writable {
  const error = Object.assign(new Error(code), { code });
  const output = new Writable({ write: (_chunk, _encoding, done) => done(error) });
  output.on('error', () => {});
  return output;
}

it.each([
  ['a pipe whose reader has gone', 'EPIPE'],
  ['a terminal that was closed', 'EIO'],
])('has nothing to complain of on %s', async (_what, code) => {
  await expect(write(failing(code), 'text')).resolves.toBeUndefined();
});

it('tells whoever writes what else goes wrong', async () => {
  await expect(write(failing('ENOSPC'), 'text')).rejects.toThrow('ENOSPC');
});
