import { parseIp, parseMac } from '@vmferry/engine/guest-address';
import type { Millis } from '@vmferry/engine/units';
import { describe, expect, it } from 'vitest';
import {
  Announcer,
  type AnnouncerOptions,
  type AnnounceSocket,
  type AnnounceTarget,
  announcementFrames,
} from '../../src/announce/announcer.ts';
import { roundDelays } from '../../src/announce/schedule.ts';

const target = (mac: string, on: string, ...ips: string[]): AnnounceTarget => ({
  mac: parseMac(mac),
  addresses: ips.map(parseIp),
  interface: on,
});
const one = target('52:54:00:00:00:01', 'br0', '10.0.0.1');
const two = target('52:54:00:00:00:02', 'br1');

/** Interfaces in memory, and timers that fire when told. */
function rig(options: Partial<AnnouncerOptions> = {}) {
  const broken = new Set<string>();
  const sent: { on: string; source: string }[] = [];
  const opened: string[] = [];
  const closed: string[] = [];
  const waits: number[] = [];
  const log: string[] = [];
  let pending: (() => void) | undefined;
  const openSocket = (on: string): AnnounceSocket => {
    if (broken.has(on)) throw new Error(`${on} is gone`);
    opened.push(on);
    return {
      send(frame) {
        if (broken.has(on)) throw new Error(`${on} is down`);
        sent.push({ on, source: Buffer.from(frame.subarray(6, 12)).toString('hex') });
      },
      close: () => closed.push(on),
    };
  };
  const announcer = new Announcer({
    openSocket,
    delays: roundDelays(),
    refreshFdb: async () => undefined,
    setTimer: (fire, wait: Millis) => {
      waits.push(wait);
      pending = fire;
      return () => {
        pending = undefined;
      };
    },
    log: (message) => log.push(message),
    ...options,
  });
  const tick = () => {
    const fire = pending;
    pending = undefined;
    fire?.();
    return fire !== undefined;
  };
  return { announcer, broken, sent, opened, closed, waits, log, tick };
}

describe('announcementFrames', () => {
  const etherType = (frame: Uint8Array) => Buffer.from(frame.subarray(12, 14)).toString('hex');

  it('are both ARP forms per IPv4 address and an advertisement per IPv6 address', () => {
    const frames = announcementFrames(target('52:54:00:00:00:01', 'br0', '10.0.0.1', 'fe80::1', '10.0.0.2'));
    expect(frames.map(etherType)).toEqual(['0806', '0806', '86dd', '0806', '0806']);
  });

  it('are a RARP when no address is known', () => {
    expect(announcementFrames(two).map(etherType)).toEqual(['8035']);
  });

  it('carry the tag of the VLAN of the tap where the bridge sends in another', () => {
    const frames = announcementFrames({ ...one, vlan: 7 });
    expect(frames.map(etherType)).toEqual(['8100', '8100']);
  });

  it('call a router one', () => {
    const router = target('52:54:00:00:00:01', 'br0', 'fe80::1', 'fe80::2');
    const flags = announcementFrames({ ...router, routers: new Set(['fe80::2']) }).map((frame) => frame[58]);
    expect(flags).toEqual([0x20, 0xa0]);
  });
});

describe('Announcer', () => {
  it('has sent the first round of every NIC before announce returns, on the sockets that were prepared', () => {
    const { announcer, sent, opened } = rig();
    announcer.prepare([one, two]);
    expect(opened).toEqual(['br0', 'br1']);
    expect(sent).toEqual([]);
    announcer.announce([one, two]);
    expect(sent.map((each) => each.on)).toEqual(['br0', 'br0', 'br1']);
    expect(opened).toEqual(['br0', 'br1']);
  });

  it('sends every round of the schedule and then closes its sockets', async () => {
    const { announcer, sent, closed, waits, tick } = rig();
    const { firstRound, done } = announcer.announce([one, two]);
    await firstRound;
    while (tick());
    expect(waits).toEqual([50, 150, 250, 350, 450, 550]);
    expect(await done).toEqual({ frames: 21, interfaces: ['br0', 'br1'], notes: [] });
    expect(sent).toHaveLength(21);
    expect(closed).toEqual(['br0', 'br1']);
  });

  it('opens one socket for two NICs on the same bridge', async () => {
    const { announcer, opened } = rig();
    announcer.announce([one, { ...two, interface: 'br0' }]).stop();
    expect(opened).toEqual(['br0']);
  });

  it('goes on with the other interfaces when one fails, and notes it', async () => {
    const { announcer, broken, sent, log, tick } = rig();
    broken.add('br0');
    announcer.prepare([one, two]);
    const { done } = announcer.announce([one, two]);
    while (tick());
    expect(await done).toEqual({
      frames: 7,
      interfaces: ['br1'],
      notes: ['The announcement on br0 failed in 7 of 7 rounds: br0 is gone'],
    });
    expect(sent.every((each) => each.on === 'br1')).toBe(true);
    expect(log.length).toBeGreaterThan(0);
  });

  it('takes an interface up again that was away for a round', async () => {
    const { announcer, broken, opened, tick } = rig();
    announcer.prepare([one]);
    const { done } = announcer.announce([one]);
    broken.add('br0');
    tick();
    broken.delete('br0');
    while (tick());
    expect(opened).toEqual(['br0', 'br0']);
    expect(await done).toEqual({
      frames: 12,
      interfaces: ['br0'],
      notes: ['The announcement on br0 failed in 1 of 7 rounds: br0 is down'],
    });
  });

  it('sends nothing more after stop', async () => {
    const { announcer, sent, closed, tick } = rig();
    const announcement = announcer.announce([one]);
    tick();
    announcement.stop();
    announcement.stop();
    expect(tick()).toBe(false);
    expect(await announcement.done).toMatchObject({ frames: 4, interfaces: ['br0'] });
    expect(sent).toHaveLength(4);
    expect(closed).toEqual(['br0']);
  });

  it('tells what it has sent until now, and whether more follows', async () => {
    const { announcer, tick } = rig();
    const announcement = announcer.announce([one, two]);
    expect(announcement.soFar()).toEqual({ frames: 3, interfaces: ['br0', 'br1'], notes: [] });
    tick();
    expect(announcement).toMatchObject({ over: false });
    while (tick());
    expect(announcement).toMatchObject({ over: true });
    expect(announcement.soFar()).toEqual(await announcement.done);
  });

  it('says no more of a NIC whose guest has left again, and ends when all have', async () => {
    const held = new Set(['tap1', 'tap2']);
    const { announcer, sent, tick } = rig({ portIsHeld: (port) => held.has(port) });
    const { done } = announcer.announce([
      { ...one, port: 'tap1' },
      { ...two, port: 'tap2' },
    ]);
    held.delete('tap1');
    tick();
    expect(sent.slice(3).map((each) => each.on)).toEqual(['br1']);
    held.delete('tap2');
    tick();
    expect(tick()).toBe(false);
    expect(await done).toMatchObject({ frames: 4, interfaces: ['br0', 'br1'] });
  });

  it('is done at once without targets', async () => {
    const { announcer, waits } = rig();
    expect(await announcer.announce([]).done).toEqual({ frames: 0, interfaces: [], notes: [] });
    expect(waits).toEqual([]);
  });

  it('refreshes the forwarding table once the caller has gone on, and hands on what that has to say', async () => {
    const asked: string[] = [];
    const { announcer, tick } = rig({
      refreshFdb: async (mac, entry) => {
        asked.push(`${mac.text} ${entry.port} ${entry.bridge}`);
        return 'not refreshed';
      },
    });
    const { done } = announcer.announce([{ ...one, fdb: { bridge: 'br0', port: 'tap0' } }, two]);
    expect(asked).toEqual([]);
    while (tick());
    const { notes } = await done;
    expect(asked).toEqual(['52:54:00:00:00:01 tap0 br0']);
    expect(notes).toEqual(['not refreshed']);
  });

  it('closes what was prepared in vain', () => {
    const { announcer, closed } = rig();
    announcer.prepare([one, two, one]);
    announcer.close();
    announcer.close();
    expect(closed).toEqual(['br0', 'br1']);
  });

  it('keeps time by the timers of Node unless told', async () => {
    const { announcer, sent } = rig({
      delays: roundDelays({ initialMs: 1, stepMs: 0, maxMs: 1 }),
      setTimer: undefined as never,
    });
    const { frames } = await announcer.announce([one]).done;
    expect(frames).toBe(14);
    expect(sent).toHaveLength(14);
  });
});
