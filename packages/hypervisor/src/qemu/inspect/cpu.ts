import type { CpuDescription } from '@vmferry/engine/guest';
import { z } from 'zod';
import { isRefusal } from '../qmp/errors.ts';
import { type QmpExecutor, textReply, typed } from '../qmp/schema.ts';

const wordsReply = z.array(
  z.looseObject({
    'cpuid-input-eax': z.int(),
    'cpuid-input-ecx': z.int().optional(),
    'cpuid-register': z.string(),
    features: z.int().min(0).max(0xffff_ffff),
  }),
);

/** The CPU at that place in QEMU's tree; undefined where QEMU does not tell what it can do (not x86). */
export async function readCpu(client: QmpExecutor, path: string): Promise<CpuDescription | undefined> {
  try {
    const [type, words] = await Promise.all([
      typed(client, 'qom-get', textReply, { path, property: 'type' }),
      typed(client, 'qom-get', wordsReply, { path, property: 'feature-words' }),
    ]);
    const features = words.flatMap((found) => {
      const { 'cpuid-input-eax': leaf, 'cpuid-input-ecx': sub, 'cpuid-register': register, features } = found;
      const word = `${leaf.toString(16)}h${sub === undefined ? '' : `.${sub}`}:${register}`;
      return features === 0 ? [] : [{ word, bits: features }];
    });
    return { model: type.replace(/-(x86_64|i386)-cpu$/, ''), features };
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}
