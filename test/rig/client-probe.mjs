// Runs in the client's namespace: asks the guest's echo service every 5 ms, over one TCP connection and over
// UDP, and writes what came back as one line of JSON when its standard input ends.
// usage: client-probe.mjs ADDRESS PERIOD_MS
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

const [address, period] = process.argv.slice(2);
const now = () => performance.timeOrigin + performance.now();

// Replies as [sequence, arrival in ms since 1970, the guest's counter].
const result = {
  tcp: { sent: 0, replies: [], error: null },
  udp: { sent: 0, replies: [] },
};

const tcp = connect({ host: address, port: 7, noDelay: true });
let held = '';
tcp.setEncoding('latin1');
tcp.on('data', (data) => {
  const at = now();
  const lines = (held + data).split('\n');
  held = lines.pop() ?? '';
  for (const line of lines) {
    const [sequence, counter] = line.split(' ').map(Number);
    result.tcp.replies.push([sequence, at, counter]);
  }
  arrived();
});
tcp.on('error', (error) => {
  result.tcp.error = error.code ?? error.message;
});
tcp.on('close', () => {
  result.tcp.error ??= 'closed';
});

const udp = createSocket('udp4');
udp.on('message', (message) => {
  const [sequence, counter] = message.toString('latin1').split(' ').map(Number);
  result.udp.replies.push([sequence, now(), counter]);
  arrived();
});
// Unreachable for a moment is what this is here to see.
udp.on('error', () => {});

const timer = setInterval(() => {
  if (result.tcp.error === null && !tcp.connecting) tcp.write(`${result.tcp.sent++}\n`);
  udp.send(String(result.udp.sent++), 7, address, () => {});
}, Number(period));

let said = false;
let finishing = false;
function arrived() {
  if (!said && result.tcp.replies.length > 0 && result.udp.replies.length > 0) {
    said = true;
    process.stdout.write('UP\n');
  }
  if (finishing && result.tcp.replies.length === result.tcp.sent) end();
}

function end() {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}

process.stdin.resume();
process.stdin.on('end', () => {
  clearInterval(timer);
  finishing = true;
  if (result.tcp.error !== null || result.tcp.replies.length === result.tcp.sent) end();
  else setTimeout(end, 3000);
});
