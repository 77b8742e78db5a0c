/** libvirtd hosts on one machine: each has namespaces of its own, and so its own sockets, state and host UUID. */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LibvirtSettings } from '@vmferry/agent-core/config';
import { type ConnectOptions, LibvirtConnection } from '@vmferry/native/libvirt/connection';
import { isLibvirtError } from '@vmferry/native/libvirt/errors';
import { ownPrefix } from './owner.ts';
import { ManagedProcess, TimeoutError } from './process.ts';
import { repoRoot } from './repo.ts';
import type { TwoHosts } from './two-hosts.ts';
import { type HostName, replacedQemu } from './versions.ts';

/** What libvirtd finds under its usual paths, each bound to a folder of the host's. */
const BINDS = {
  run: '/run/libvirt',
  lib: '/var/lib/libvirt',
  log: '/var/log/libvirt',
  cache: '/var/cache/libvirt',
  etc: '/etc/libvirt',
  /** Where both agents' sockets are found: one path, and each host has its own behind it. */
  sockets: '/run/vmferry',
} as const;

const DAEMON_CONF = `
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
keepalive_interval = 5
keepalive_count = 5
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
`;

/** QEMUs as root and as plain processes: nothing here has cgroups, a log daemon or a security driver. */
const QEMU_CONF = `
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
max_core = 0
`;

/*
 * libvirtd in mount and UTS namespaces of its own, over the network namespace that it is started in. /dev/kvm is
 * hidden: it opens here and runs no guest. Read-only, because libvirtd probes QEMU anew for every start as long as it
 * may write there and QEMU found no KVM. The QEMU that the host is to have lies in the installed one's place.
 */
const START = `
set -e
hostname "$1"
for pair in $3; do mkdir -p "\${pair#*:}"; mount --bind "$2/\${pair%%:*}" "\${pair#*:}"; done
mount --bind "$2/hosts" /etc/hosts
if [ -e /dev/kvm ]; then mount --bind "$2/empty" /dev/kvm; mount -o remount,ro,bind /dev/kvm; fi
if [ -n "$4" ]; then mount --bind "$4" "$(command -v qemu-system-x86_64)"; fi
exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid
`;

/** Probing QEMU takes libvirtd 12 s; it checks by itself whether what it found the last time still holds. */
const capabilitiesCache = (qemu: string) =>
  join(repoRoot(), '.cache', 'libvirt', 'capabilities', encodeURIComponent(qemu));

export interface LibvirtHostOptions {
  /** For messages and the host's name. */
  readonly name: string;
  /** A network namespace, whose removal ends QEMUs that are left. */
  readonly namespace: string;
  /** In place of the installed QEMU; "" for that. */
  readonly qemu?: string;
}

/** One on each host of the rig, which end with it. */
export async function startLibvirtHosts(rig: TwoHosts): Promise<Record<HostName, LibvirtHost>> {
  const start = async (name: HostName) =>
    rig.own(await LibvirtHost.start({ name, namespace: rig.namespace(name), qemu: replacedQemu(name) }));
  const [a, b] = await Promise.all([start('a'), start('b')]);
  return { a, b };
}

/** A libvirtd and what belongs to it. Root only. */
export class LibvirtHost {
  readonly name: string;
  /** Holds all of its state, and is seen by everybody under this path. */
  readonly dir: string;
  readonly hostUuid = randomUUID();
  readonly #namespace: string;
  readonly #qemu: string;
  #daemon: ManagedProcess | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(dir: string, { name, namespace, qemu = '' }: LibvirtHostOptions) {
    this.name = name;
    this.dir = dir;
    this.#namespace = namespace;
    this.#qemu = qemu;
  }

  static async start(options: LibvirtHostOptions): Promise<LibvirtHost> {
    const dir = await mkdtemp(join(tmpdir(), `${ownPrefix()}-libvirt-${options.name}-`));
    const host = new LibvirtHost(dir, options);
    try {
      await host.#prepare();
      await host.startDaemon();
    } catch (error) {
      await host.stop();
      throw error;
    }
    return host;
  }

  /** Its socket, from anywhere on this machine. */
  get socket(): string {
    return join(this.dir, 'run', 'libvirt-sock');
  }

  get uri(): string {
    return `qemu+unix:///system?socket=${this.socket}`;
  }

  /** What an agent outside of the host's namespaces is told to reach it. */
  get agentSettings(): LibvirtSettings {
    return {
      uri: this.uri,
      socketDir: BINDS.sockets,
      socketDirHere: join(this.dir, 'sockets'),
      hostRoot: `/proc/${this.daemonPid}/root`,
      allowXmlChanges: ['character-device-path'],
      imageDirectories: [{ path: `${BINDS.lib}/images`, here: join(this.dir, 'lib', 'images') }],
    };
  }

  /** Of libvirtd. */
  get daemonPid(): number {
    if (this.#daemon === undefined) throw new Error(`no libvirtd runs on ${this.name}`);
    return this.#daemon.pid;
  }

  connect(options: ConnectOptions = {}): Promise<LibvirtConnection> {
    return LibvirtConnection.open(this.uri, options);
  }

  /** Also after `killDaemon`; its domains are found again. */
  async startDaemon(): Promise<void> {
    const binds = Object.entries(BINDS).map(([folder, path]) => `${folder}:${path}`);
    const script = ['bash', '-c', START, 'sh', `host-${this.name}`, this.dir, binds.join(' '), this.#qemu];
    this.#daemon = new ManagedProcess(['unshare', '-m', '-u', '--propagation', 'private', ...script], {
      namespace: this.#namespace,
      log: join(this.dir, 'log', 'stderr'),
    });
    this.#daemon.child.stdin.end();
    const deadline = Date.now() + 60_000;
    while (!(await this.#answers())) {
      if (this.#daemon.status !== undefined) {
        throw new Error(`libvirtd on ${this.name} ended: ${this.#daemon.stderr || (await this.log())}`);
      }
      if (Date.now() > deadline) throw new TimeoutError(`libvirtd on ${this.name}: ${await this.log()}`);
      await sleep(50);
    }
  }

  /** As a crash would; its QEMUs go on. */
  async killDaemon(): Promise<void> {
    this.#daemon?.kill('SIGKILL');
    await this.#daemon?.exited;
    await rm(this.socket, { force: true });
  }

  /** As a crash of its QEMU would end it. One that does not run is no error. */
  async killDomain(name: string): Promise<void> {
    try {
      process.kill(Number(await readFile(join(this.dir, 'run/qemu', `${name}.pid`), 'utf8')), 'SIGKILL');
    } catch (error) {
      if (!['ENOENT', 'ESRCH'].includes(String((error as NodeJS.ErrnoException).code))) throw error;
    }
  }

  /** What libvirtd and its QEMUs wrote, for messages. */
  async log(): Promise<string> {
    const files = [join(this.dir, 'log', 'libvirtd.log')];
    const qemu = join(this.dir, 'log', 'qemu');
    for (const file of await readdir(qemu)) if (file.endsWith('.log')) files.push(join(qemu, file));
    const texts = files.filter((file) => existsSync(file)).map((file) => readFile(file, 'utf8'));
    return (await Promise.all(texts)).map((text) => text.slice(-4000)).join('\n');
  }

  /** Destroys its domains and ends libvirtd. Any number of times. */
  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      if (this.#daemon !== undefined && this.#daemon.status === undefined) {
        await this.#destroyAll();
        await this.#daemon.stop(5000);
        await keepCapabilities(this.dir, this.#qemu);
      }
      await rm(this.dir, { recursive: true, force: true });
    })();
    return this.#stopped;
  }

  async #prepare(): Promise<void> {
    const path = (...parts: string[]) => join(this.dir, ...parts);
    for (const folder of [...Object.keys(BINDS), 'log/qemu', 'etc/qemu/networks', 'cache/qemu']) {
      await mkdir(path(folder), { recursive: true });
    }
    await writeFile(path('empty'), '');
    await writeFile(path('hosts'), `127.0.0.1 localhost\n127.0.1.1 host-${this.name}\n`);
    await writeFile(path('etc/libvirtd.conf'), `host_uuid = "${this.hostUuid}"\n${DAEMON_CONF}`);
    await writeFile(path('etc/qemu.conf'), QEMU_CONF);
    await writeFile(path('etc/libvirt.conf'), '');
    const known = path('cache/qemu/capabilities');
    await mkdir(known);
    const kept = capabilitiesCache(this.#qemu);
    const files = existsSync(kept) ? await readdir(kept) : [];
    for (const file of files.filter((name) => name.endsWith('.xml'))) {
      await copyFile(join(kept, file), join(known, file));
    }
  }

  async #answers(): Promise<boolean> {
    if (!existsSync(this.socket)) return false;
    try {
      const connection = await this.connect({ keepAlive: false });
      await connection.close();
      return true;
    } catch (error) {
      // Not listening yet.
      if (isLibvirtError(error, 'VIR_ERR_SYSTEM_ERROR')) return false;
      throw error;
    }
  }

  async #destroyAll(): Promise<void> {
    const connection = await this.connect();
    try {
      for (const domain of await connection.domains(['active'])) {
        await domain.destroy().catch((error: unknown) => {
          // It ended by itself meanwhile.
          if (!isLibvirtError(error, 'VIR_ERR_NO_DOMAIN', 'VIR_ERR_OPERATION_INVALID')) throw error;
        });
      }
    } finally {
      await connection.close();
    }
  }
}

async function keepCapabilities(dir: string, qemu: string): Promise<void> {
  const found = join(dir, 'cache', 'qemu', 'capabilities');
  if (!existsSync(found)) return;
  const kept = capabilitiesCache(qemu);
  await mkdir(kept, { recursive: true });
  for (const file of await readdir(found)) {
    // Another host may read or write it at the same time.
    const scratch = join(kept, `${randomUUID()}.new`);
    await copyFile(join(found, file), scratch);
    await rename(scratch, join(kept, file));
  }
}
