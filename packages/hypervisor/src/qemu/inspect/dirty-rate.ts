/** How fast a guest dirties its memory, as QEMU itself measures it. */
import { type BytesPerSec, bytesPerSec } from '@vmferry/engine/units';
import { isRefusal } from '../qmp/errors.ts';
import { dirtyRateReply, type QmpExecutor, typed } from '../qmp/schema.ts';

const TRIES_A_SECOND = 40;
const POLL_MS = 50;

/**
 * By samples of pages, beside whatever else QEMU does; takes that long. Undefined where QEMU cannot.
 *
 * @throws QmpError
 */
export async function sampleDirtyRate(client: QmpExecutor, seconds = 1): Promise<BytesPerSec | undefined> {
  try {
    await client.execute('calc-dirty-rate', { 'calc-time': seconds });
    for (let tries = 0; tries < TRIES_A_SECOND * seconds; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const reply = await typed(client, 'query-dirty-rate', dirtyRateReply);
      if (reply.status === 'measured') return bytesPerSec((reply['dirty-rate'] ?? 0) * 1024 * 1024);
    }
    return undefined;
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}
