/**
 * Announces NICs from the network namespace that it runs in, with all that the product does it with.
 * The argument and the one line of output are JSON.
 */
import { openPacketSocket } from '@vmferry/native/packet-socket';
import { Announcer } from '../../../src/announce/announcer.ts';
import { refreshFdb } from '../../../src/announce/interfaces.ts';
import { planAnnouncement } from '../../../src/announce/plan.ts';
import { roundDelays } from '../../../src/announce/schedule.ts';
import { runTool } from '../../../src/announce/tools.ts';

const { nics, places } = JSON.parse(process.argv[2] ?? '');
const plan = await planAnnouncement({ nics, places, explicit: [], run: runTool });
let sent = 0;
const announcer = new Announcer({
  openSocket: (name) => {
    const socket = openPacketSocket(name);
    const send = (frame: Uint8Array): void => {
      socket.send(frame);
      sent += 1;
    };
    return { send, close: () => socket.close() };
  },
  delays: roundDelays(),
  refreshFdb: (mac, entry) => refreshFdb(runTool, mac, entry),
});
announcer.prepare(plan.targets);
const began = performance.now();
const announcement = announcer.announce(plan.targets);
const sentAtOnce = sent;
const summary = await announcement.done;
const totalMs = performance.now() - began;
announcer.close();
process.stdout.write(`${JSON.stringify({ planNotes: plan.notes, ...summary, sentAtOnce, totalMs })}\n`);
