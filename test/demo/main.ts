/** What `vmferry demo` runs in a checkout: the test guest, moved there and back by every strategy. */
import { probeKvm } from '@vmferry/hypervisor/qemu/probe-kvm';
import type { ClientView, DemoMove, DemoResult, QemuDemoOptions } from '@vmferry/migrate-cli/demo/qemu-demo';
import type { LinuxGuestOptions } from '../guest/linux.ts';
import type { ProbeResult } from '../rig/client-gap.ts';
import { type GuestProcess, verifyHistory } from '../rig/guest.ts';
import type { HostName } from '../rig/versions.ts';
import { RunWatcher } from '../rig/watcher.ts';
import { bareHosts, type Hosts, namespacedHosts } from './hosts.ts';

const STRATEGIES = ['precopy', 'postcopy', 'hybrid', 'auto'] as const;

const GUEST = {
  memoryMiB: 256,
  fillMiB: 128,
  workingSetMiB: 16,
  dirtyMBps: 8,
} as const satisfies LinuxGuestOptions;

/** Rejects when it cannot be set up, or was aborted. */
export async function runQemuDemo(options: QemuDemoOptions): Promise<DemoResult> {
  const { signal } = options;
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => reject(new Error('the demo was interrupted'));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
  aborted.catch(() => {});
  const setting = await setUp(options);
  try {
    return await Promise.race([move(setting, options), aborted]);
  } finally {
    await setting.hosts.close();
  }
}

interface Setting {
  readonly hosts: Hosts;
  readonly guest: LinuxGuestOptions;
}

async function setUp({ say }: QemuDemoOptions): Promise<Setting> {
  const kvm = await probeKvm();
  if (!kvm.usable) say(`KVM runs no guests here (${kvm.why}): QEMU emulates the guest (TCG)`);
  const guest = { ...GUEST, accel: kvm.usable ? 'kvm' : 'tcg' } as const;
  try {
    return { guest, hosts: await namespacedHosts() };
  } catch (error) {
    const why = error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error);
    say(`no network namespaces may be made here (${why}): the guest has no network and no clients`);
    return { guest, hosts: await bareHosts() };
  }
}

async function move({ hosts, guest }: Setting, { say }: QemuDemoOptions): Promise<DemoResult> {
  say(`booting a guest of ${GUEST.memoryMiB} MiB that writes ${GUEST.dirtyMBps} MB/s and checks its memory`);
  let here = await hosts.boot('a', guest);
  let host: HostName = 'a';
  const places = [here];
  const watcher = await RunWatcher.watch([here.qemu]);
  const version = await qemuVersion(here);
  const moves: DemoMove[] = [];
  for (const strategy of STRATEGIES) {
    const to: HostName = host === 'a' ? 'b' : 'a';
    say(`${strategy}: host ${host} to host ${to}`);
    const there = await hosts.incoming(to, guest);
    await watcher.add(there.qemu);
    const probe = await hosts.probe();
    await settle(here);
    probe?.mark();
    const report = await hosts.migrate({ strategy, from: host, to, src: here, dst: there });
    const arrived = report.outcome === 'completed' || report.error?.guestRunsOn === 'dest';
    const [now, before] = arrived ? [there, here] : [here, there];
    await settle(now);
    const client = probe === undefined ? null : clientView(await probe.finish());
    moves.push({ strategy, from: `host ${host}`, to: `host ${to}`, report, client });
    await before.stop();
    if (arrived) {
      places.push(there);
      here = there;
      host = to;
    }
  }
  say('checking every page of the guest');
  return {
    setting: [
      `Guest: Linux, ${GUEST.memoryMiB} MiB, ${GUEST.fillMiB} MiB of it filled (75 % text-like, 25 % random), ` +
        `${GUEST.dirtyMBps} MB/s written to ${GUEST.workingSetMiB} MiB; ${version}, ${guest.accel === 'kvm' ? 'KVM' : 'TCG'}`,
      `Hosts: ${hosts.link}`,
    ],
    moves,
    verdict: await verdict(places, watcher, moves),
  };
}

async function verdict(
  places: readonly GuestProcess[],
  watcher: RunWatcher,
  moves: readonly DemoMove[],
): Promise<DemoResult['verdict']> {
  try {
    const { pages, ticks } = await verifyHistory(places);
    await watcher.finish();
    const clients = moves.flatMap(({ client }) => client ?? []);
    const lost = clients.filter(({ survived }) => !survived).length;
    const words = [
      `The guest booted once and never ran on two hosts; all ${pages} pages that it checks are as it left them, ` +
        `and its clock ticked ${ticks.length} times without a gap.`,
      ...(clients.length === 0
        ? []
        : [
            lost === 0
              ? "The client's connections lived through every move."
              : `${lost} client connections broke.`,
          ]),
    ];
    return { sound: lost === 0, words: words.join(' ') };
  } catch (error) {
    return { sound: false, words: error instanceof Error ? error.message : String(error) };
  } finally {
    await watcher.close();
  }
}

function clientView({ udpGap, tcpGap, survived }: ProbeResult): ClientView {
  return { udpGapMs: udpGap.ms, tcpGapMs: tcpGap.ms, survived };
}

async function qemuVersion(guest: GuestProcess): Promise<string> {
  const { qemu } = (await guest.qemu.qmp.query('query-version')) as {
    qemu: { major: number; minor: number; micro: number };
  };
  return `QEMU ${qemu.major}.${qemu.minor}.${qemu.micro}`;
}

/** Half a second of the guest's own time. */
async function settle(guest: GuestProcess): Promise<void> {
  for (let i = 0; i < 5; i++) await guest.nextTick();
}
