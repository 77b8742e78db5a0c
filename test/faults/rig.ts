/** Two libvirtds outside of a test. */
import { TwoLibvirts } from '../rig/two-libvirts.ts';

export async function twoLibvirts(): Promise<{
  readonly libvirts: TwoLibvirts;
  readonly close: () => Promise<void>;
}> {
  const cleanups: (() => Promise<unknown>)[] = [];
  const libvirts = await TwoLibvirts.start((thing, cleanup) => {
    cleanups.push(() => cleanup(thing));
    return thing;
  });
  const close = async (): Promise<void> => {
    try {
      for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
    } finally {
      await libvirts.close();
    }
  };
  return { libvirts, close };
}
