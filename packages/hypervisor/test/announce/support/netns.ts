import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import type { RunTool } from '../../../src/announce/tools.ts';

const exec = promisify(execFile);

/** A network namespace of the test's own, and a process in it that keeps its view of sysfs. */
export interface Netns {
  readonly name: string;
  /** `/sys/class/net` as seen from inside. */
  readonly sysfsRoot: string;
  /** Runs a tool inside, as `runTool` does outside. */
  readonly run: RunTool;
  /** Runs `ip` with the words of `command` inside. */
  ip(command: string): void;
  /** The port that `bridge`'s forwarding table names for `mac`. */
  fdbPort(bridge: string, mac: string): Promise<string | undefined>;
  remove(): Promise<void>;
}

export async function makeNetns(label: string): Promise<Netns> {
  const name = `vfa-${process.pid}-${label}`;
  execFileSync('ip', ['netns', 'add', name]);
  const keeper = spawn('ip', ['netns', 'exec', name, 'sh', '-c', 'echo ready; exec sleep 600'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(keeper.stdout, 'data');
  const run: RunTool = async (tool, args) => {
    return (await exec('ip', ['netns', 'exec', name, tool, ...args])).stdout;
  };
  return {
    name,
    sysfsRoot: `/proc/${keeper.pid}/root/sys/class/net`,
    run,
    ip: (command) => {
      execFileSync('ip', ['-n', name, ...command.split(' ')], { stdio: ['ignore', 'ignore', 'inherit'] });
    },
    async fdbPort(bridge, mac) {
      const entries: { mac: string; ifname: string; master?: string }[] = JSON.parse(
        await run('bridge', ['-j', 'fdb', 'show', 'br', bridge]),
      );
      return entries.find((entry) => entry.mac === mac && entry.master === bridge)?.ifname;
    },
    async remove() {
      const gone = once(keeper, 'exit');
      keeper.kill('SIGKILL');
      await gone;
      execFileSync('ip', ['netns', 'del', name]);
    },
  };
}
