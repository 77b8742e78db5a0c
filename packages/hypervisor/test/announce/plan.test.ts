import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type NicPlace, planAnnouncement } from '../../src/announce/plan.ts';
import type { RunTool } from '../../src/announce/tools.ts';

const noTool: RunTool = async (tool) => {
  throw new Error(`${tool} is not to be run here`);
};

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'vmferry-plan-'));
  for (const tap of ['tap0', 'tap1', 'tap2']) {
    mkdirSync(join(root, tap));
    writeFileSync(join(root, tap, 'tun_flags'), '0x1002\n');
  }
});
afterEach(() => rmSync(root, { recursive: true }));

describe('a NIC whose guest has given it another address', () => {
  const nic = (name: string, address: string, hostInterface?: string) => ({
    ...{ name, mac: `52:54:00:00:00:${address}`, addresses: [] },
    ...(hostInterface === undefined ? {} : { hostInterface }),
  });
  const guest = [nic('net0', '0a'), nic('net1', 'ff')];

  const planned = async (places: readonly NicPlace[], nics = guest) => {
    const { targets } = await planAnnouncement({ nics, places, explicit: [], run: noTool, sysfsRoot: root });
    return targets.map((target) => [target.mac.text.slice(-2), target.interface]);
  };

  it('is known by its name', async () => {
    expect(await planned([nic('net1', '0b', 'tap1'), nic('net0', '0a', 'tap0')])).toEqual([
      ['0a', 'tap0'],
      ['ff', 'tap1'],
    ]);
  });

  it('is known by its place where names differ', async () => {
    expect(await planned([nic('a', '0a', 'tap0'), nic('b', '0b', 'tap1')])).toEqual([
      ['0a', 'tap0'],
      ['ff', 'tap1'],
    ]);
  });

  it('never gets the place of another, or one by guessing', async () => {
    expect(
      await planned([nic('net1', '0a', 'tap0'), nic('b', '0b', 'tap1'), nic('c', '0c', 'tap2')]),
    ).toEqual([['0a', 'tap0']]);
  });
});
