import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ownPrefix } from './owner.ts';
import { type ExitStatus, ManagedProcess, within } from './process.ts';
import { Qmp } from './qmp.ts';
import { Serial } from './serial.ts';
import { type HostName, machineType, qemuOf } from './versions.ts';

export type MemoryBackend =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'memfd' }
  /** Files `mem0`, `mem1`, … in the process's folder, shared: what is written to them the guest sees. No post-copy. */
  | { readonly kind: 'file' }
  /** Of 2 MiB; see `reserveHugepages`. */
  | { readonly kind: 'hugepages' };

export type Nic =
  | { readonly kind: 'tap'; readonly ifname: string; readonly mac: string; readonly guestAnnounce?: boolean }
  /** One of a guest's at most may go from a QEMU of 8.2 or newer to an older one, which names all of them alike. */
  | { readonly kind: 'user'; readonly mac: string }
  /** Plugged into nothing. */
  | { readonly kind: 'unplugged'; readonly mac: string };

export type Boot =
  | { readonly kind: 'linux'; readonly kernel: string; readonly initrd: string; readonly append: string }
  /** A raw disk; each process gets a copy of its own. */
  | { readonly kind: 'disk'; readonly image: string };

/** What a source and its destination must have in common. */
export interface Hardware {
  /** Memory of exactly the size asked for: see ODD_KIB for what then is unsound. */
  readonly plainMemory?: boolean;
  readonly boot: Boot;
  readonly memoryMiB: number;
  readonly smp?: number;
  /** Default `tcg`. */
  readonly accel?: 'tcg' | 'kvm';
  /** Default `pc`. `pc` and `q35` are of a version that both hosts have. */
  readonly machine?: string;
  /** Default QEMU's. */
  readonly cpu?: string;
  readonly backend?: MemoryBackend;
  /** Memory of each NUMA node, in MiB; their sum is `memoryMiB`. */
  readonly numaMiB?: readonly number[];
  readonly nics?: readonly Nic[];
  readonly extraArgs?: readonly string[];
}

export interface QemuOptions extends Hardware {
  /** For messages, such as `src`. */
  readonly name: string;
  readonly namespace?: string;
  /** `run`: boots at once (`autostart`). `incoming`: waits for `migrate-incoming`, then stays paused. */
  readonly role: 'run' | 'incoming';
  /** Default: true for `run`, false for `incoming` (`-S`). */
  readonly autostart?: boolean;
  /** Whose QEMU it is (`versions.ts`). Default: `a` for `run`, `b` for `incoming`. */
  readonly host?: HostName;
  /** Default the host's. */
  readonly binary?: string;
}

/*
 * QEMU 7.2 loses writes of a TCG guest in pre-copy: when it collects the dirty log of a RAM block whose length
 * is a multiple of 256 KiB, it forgets to make the vCPUs' TLBs track the collected pages again, and what is
 * written through an entry that is still there stays behind (mended upstream later). With several rounds and a
 * busy guest every migration breaks the guest. Blocks of another length take a path that is right, so each gets 8 KiB
 * on top; huge pages cannot, and only a first and last round are sound there.
 */
const ODD_KIB = 8;

function memoryArgs(hw: Hardware, machine: string, dir: string): string[] {
  const backend = hw.backend ?? { kind: 'anonymous' };
  const odd = backend.kind === 'hugepages' || hw.plainMemory ? 0 : ODD_KIB;
  const size = (mib: number) => `${mib * 1024 + odd}K`;
  const object = (id: string, mib: number) => {
    const common = `id=${id},size=${size(mib)}`;
    switch (backend.kind) {
      case 'anonymous':
        return `memory-backend-ram,${common}`;
      case 'memfd':
        return `memory-backend-memfd,${common},share=on`;
      case 'file':
        return `memory-backend-file,${common},share=on,mem-path=${join(dir, id)}`;
      case 'hugepages':
        return `memory-backend-memfd,${common},share=on,hugetlb=on,hugetlbsize=2M`;
    }
  };
  if (hw.numaMiB) {
    const total = hw.numaMiB.reduce((sum, mib) => sum + mib * 1024 + odd, 0);
    const nodes = hw.numaMiB.flatMap((mib, i) => [
      '-object',
      object(`mem${i}`, mib),
      '-numa',
      `node,nodeid=${i},memdev=mem${i}${i === 0 ? `,cpus=0-${(hw.smp ?? 1) - 1}` : ''}`,
    ]);
    return ['-machine', machine, '-m', `${total}K`, ...nodes];
  }
  const total = ['-m', size(hw.memoryMiB)];
  if (backend.kind === 'anonymous') return ['-machine', machine, ...total];
  return ['-machine', `${machine},memory-backend=mem0`, ...total, '-object', object('mem0', hw.memoryMiB)];
}

function nicArgs(nics: readonly Nic[]): string[] {
  return nics.flatMap((nic, i) => {
    const backend = (): string => {
      switch (nic.kind) {
        case 'tap':
          return `tap,id=net${i},ifname=${nic.ifname},script=no,downscript=no`;
        case 'user':
          return `user,id=net${i},restrict=on`;
        case 'unplugged':
          return `hubport,id=net${i},hubid=${i}`;
      }
    };
    const announce = nic.kind === 'tap' && nic.guestAnnounce === false ? ',guest_announce=off' : '';
    return [
      '-netdev',
      backend(),
      '-device',
      `virtio-net-pci,netdev=net${i},mac=${nic.mac},romfile=${announce}`,
    ];
  });
}

/**
 * One QEMU under TCG. Its rig monitor and serial port connect to us, so that starting awaits events only;
 * `productQmp` and `watcherQmp` are monitors that QEMU listens on. Started paused, and run once all is connected.
 */
export class QemuProcess {
  /** Working folder: sockets, `qemu.log`, `serial.log`. Removed by `stop`. */
  readonly dir: string;
  readonly name: string;
  readonly options: QemuOptions;
  /** The monitor socket that belongs to the product under test. */
  readonly productQmp: string;
  /** The monitor socket that belongs to the watcher. */
  readonly watcherQmp: string;
  readonly process: ManagedProcess;
  readonly qmp: Qmp;
  readonly serial: Serial;
  #stopped: Promise<ExitStatus> | undefined;

  private constructor(dir: string, options: QemuOptions, process: ManagedProcess, qmp: Qmp, serial: Serial) {
    this.dir = dir;
    this.name = options.name;
    this.options = options;
    this.productQmp = join(dir, 'product.qmp');
    this.watcherQmp = join(dir, 'watcher.qmp');
    this.process = process;
    this.qmp = qmp;
    this.serial = serial;
  }

  static async start(options: QemuOptions): Promise<QemuProcess> {
    const dir = await mkdtemp(join(tmpdir(), `${ownPrefix()}-${options.name}-`));
    await mkdir(join(dir, 'run'));
    const monitor = await inbound(join(dir, 'run', 'rig.qmp'));
    const serial = await inbound(join(dir, 'run', 'serial'));
    let process: ManagedProcess | undefined;
    try {
      process = new ManagedProcess(await commandLine(options, dir), {
        log: join(dir, 'qemu.log'),
        ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
      });
      const started = process;
      const died = started.exited.then((status) => {
        throw new Error(`QEMU ${options.name} ended with ${status.code ?? status.signal}: ${started.stderr}`);
      });
      died.catch(() => {});
      const up = async () => {
        const port = new Serial(await serial.connection, options.name);
        const qmp = await Qmp.open(await monitor.connection);
        return new QemuProcess(dir, options, started, qmp, port);
      };
      const qemu = await within(20_000, () => `start of QEMU ${options.name}`, Promise.race([up(), died]));
      if (options.role === 'run' && options.autostart !== false) await qemu.qmp.execute('cont');
      return qemu;
    } catch (error) {
      process?.kill();
      await rm(dir, { recursive: true, force: true });
      throw error;
    } finally {
      monitor.close();
      serial.close();
    }
  }

  get pid(): number {
    return this.process.pid;
  }

  /** QEMU's run state, such as `running` or `inmigrate`. */
  async runState(): Promise<string> {
    return (await this.qmp.query('query-status'))['status'] as string;
  }

  /** Ends it as a crash would. */
  async crash(): Promise<ExitStatus> {
    this.process.kill('SIGKILL');
    return this.process.exited;
  }

  /** Ends it, by force: one in the middle of a failed post-copy does not quit. Any number of times. */
  stop(): Promise<ExitStatus> {
    this.#stopped ??= (async () => {
      const status = await this.crash();
      this.qmp.close();
      this.serial.close();
      await rm(this.dir, { recursive: true, force: true });
      return status;
    })();
    return this.#stopped;
  }
}

async function commandLine(options: QemuOptions, dir: string): Promise<string[]> {
  const path = (name: string) => join(dir, name);
  const boot: string[] = [];
  if (options.boot.kind === 'linux') {
    const { kernel, initrd, append } = options.boot;
    boot.push('-kernel', kernel, '-initrd', initrd, '-append', append);
  } else {
    await copyFile(options.boot.image, path('disk.img'));
    boot.push('-drive', `file=${path('disk.img')},format=raw,if=ide`);
  }
  return [
    options.binary ?? qemuOf(options.host ?? (options.role === 'run' ? 'a' : 'b')),
    ...['-name', `vmferry-${options.name}`, '-accel', options.accel === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...(options.role === 'incoming' && options.autostart === true ? [] : ['-S']),
    ...memoryArgs(options, await machineType(options.machine ?? 'pc'), dir),
    ...['-smp', String(options.smp ?? 1)],
    ...(options.cpu === undefined ? [] : ['-cpu', options.cpu]),
    ...['-chardev', `socket,id=serial,path=${path('run/serial')},logfile=${path('serial.log')}`],
    ...['-serial', 'chardev:serial'],
    ...['-chardev', `socket,id=rig,path=${path('run/rig.qmp')}`, '-mon', 'chardev=rig,mode=control'],
    ...['-qmp', `unix:${path('product.qmp')},server=on,wait=off`],
    ...['-qmp', `unix:${path('watcher.qmp')},server=on,wait=off`],
    ...(options.nics === undefined || options.nics.length === 0 ? ['-nic', 'none'] : nicArgs(options.nics)),
    ...boot,
    ...(options.role === 'incoming' ? ['-incoming', 'defer'] : []),
    ...(options.extraArgs ?? []),
  ];
}

interface Inbound {
  readonly connection: Promise<Socket>;
  close(): void;
}

/** Listens for the one connection that QEMU makes to this socket. */
async function inbound(path: string): Promise<Inbound> {
  const server = createServer();
  const connection = new Promise<Socket>((resolve, reject) => {
    server.once('connection', resolve);
    server.once('error', reject);
  });
  connection.catch(() => {});
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { connection, close: () => server.close() };
}
