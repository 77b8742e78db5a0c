/**
 * A destination agent in a process of its own, for tests that kill it: loads guests and never says that they are
 * ready. It prints its URL, and `loaded` when a guest is. Takes the directory of its state.
 */
import { createLogger } from '@vmferry/agent-core/log';
import { DestAgent } from '@vmferry/dest-agent/agent';
import { QemuDestGuest } from '@vmferry/hypervisor/qemu/dest-guest';
import { Listener } from '@vmferry/wire/listener';
import { overriding } from '../simulated/support.ts';

const [stateDir = ''] = process.argv.slice(2);
const log = createLogger({ level: 'fatal', role: 'dest' });
const agent = new DestAgent(
  { stateDir, insecure: false, log },
  {
    guests: async (uri) => {
      const guest = await QemuDestGuest.connect(uri.replace(/^qemu:/, ''));
      return overriding(guest, {
        ready: async () => {
          await guest.ready();
          console.log('loaded');
          await new Promise(() => {});
        },
      });
    },
  },
);
const { url } = await Listener.listen('ws://127.0.0.1:0', {
  handlers: {
    '/v1/migration': (socket, peer) => agent.acceptMigration(socket, peer),
    '/v1/data': (socket, peer) => agent.acceptMigration(socket, peer),
  },
});
console.log(url);
