/**
 * An agent of libvirt guests in a process of its own, for tests that kill it: it does what any agent does until a step of
 * the switchover, says `at STEP`, and goes no further.
 *
 *     doomed-agent.js CONFIG.json dest STEP                        prints its URL
 *     doomed-agent.js CONFIG.json source STEP REQUEST.json-text    makes the migration
 */
import { readFile } from 'node:fs/promises';
import type { LibvirtSettings } from '@vmferry/agent-core/config';
import { libvirtPolicy } from '@vmferry/agent-core/libvirt-config';
import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import type { DestGuest, SourceGuest } from '@vmferry/engine/guest';
import { migrateRequestSchema } from '@vmferry/engine/options';
import { LibvirtDestGuest } from '@vmferry/hypervisor/libvirt/dest/guest';
import { libvirtOptions } from '@vmferry/hypervisor/libvirt/options';
import { LibvirtSourceGuest } from '@vmferry/hypervisor/libvirt/source/guest';
import { SourceAgent } from '@vmferry/source-agent/agent';
import { Listener } from '@vmferry/wire/listener';
import { overriding } from '../simulated/support.ts';

const [file = '', role, step, request = '{}'] = process.argv.slice(2);
const { stateDir, libvirt } = JSON.parse(await readFile(file, 'utf8')) as {
  readonly stateDir: string;
  readonly libvirt: LibvirtSettings;
};
const options = { stateDir, insecure: false, libvirt };
const nameOf = (uri: string): string => uri.slice('libvirt:'.length);

async function goNoFurther(): Promise<never> {
  console.log(`at ${step}`);
  return await new Promise(() => {});
}

/** `loaded`: all state is here, and the source has not been told. `told`: the commit was heard, and nothing done. */
async function entering(uri: string): Promise<DestGuest> {
  const guest = await LibvirtDestGuest.connect(nameOf(uri), libvirtOptions(libvirt), libvirtPolicy(libvirt));
  return overriding<DestGuest>(guest, {
    ready: async () => {
      await guest.ready();
      if (step === 'loaded') await goNoFurther();
    },
    run: async (how) => {
      if (step === 'told') await goNoFurther();
      return await guest.run(how);
    },
  });
}

/** `stopped`: the guest stands still, and its state is on its way. `committed`: that is on disk, and nobody has been told. */
async function leaving(uri: string): Promise<SourceGuest> {
  const guest = await LibvirtSourceGuest.connect(nameOf(uri), libvirtOptions(libvirt));
  return overriding<SourceGuest>(guest, {
    open: async (plan) => {
      const items = await guest.open(plan);
      return (async function* () {
        for await (const item of items) {
          if (item.type === 'state-complete' && step === 'stopped') await goNoFurther();
          yield item;
        }
      })();
    },
    committed: () => {
      if (step !== 'committed') return guest.committed();
      console.log(`at ${step}`);
      // Not even what was begun goes on.
      for (;;);
    },
  });
}

if (role === 'dest') {
  const log = createLogger({ level: 'fatal', role: 'dest' });
  const agent = new DestAgent({ ...options, log }, { guests: entering });
  const { url } = await Listener.listen('ws://127.0.0.1:0', {
    handlers: {
      '/v1/migration': (socket, peer) => agent.acceptMigration(socket, peer),
      '/v1/data': (socket, peer) => agent.acceptMigration(socket, peer),
    },
  });
  console.log(url);
} else {
  const log = createLogger({ level: 'fatal', role: 'source' });
  const agent = new SourceAgent({ ...options, log }, { guests: leaving });
  const { done } = agent.migrate(migrateRequestSchema.parse(JSON.parse(request)));
  console.log(JSON.stringify(await done));
}
