import type { MigrationEvent } from '@vmferry/engine/events';
import type { MigrationReport } from '@vmferry/engine/report/report';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventHub } from '../src/event-hub.ts';

const progress = (round: number): MigrationEvent => ({
  type: 'progress',
  phase: 'precopy',
  round,
  elapsedMs: 0,
  totalBytes: 0,
  remainingBytes: 0,
  dirtyBytesPerSec: 0,
  bandwidthBytesPerSec: 0,
  expectedDowntimeMs: null,
  rawBytes: 0,
  wireBytes: 0,
  faults: 0,
});
const note = (text: string): MigrationEvent => ({ type: 'note', text });
const finished: MigrationEvent = { type: 'finished', report: { outcome: 'completed' } as MigrationReport };

async function all(events: AsyncIterable<MigrationEvent>): Promise<MigrationEvent[]> {
  const seen: MigrationEvent[] = [];
  for await (const event of events) seen.push(event);
  return seen;
}

describe('EventHub', () => {
  it('gives every observer the events since it came, and ends with finished', async () => {
    const hub = new EventHub();
    const first = hub.observe();
    hub.publish(note('a'));
    const second = hub.observe();
    hub.publish(note('b'));
    hub.publish(finished);
    hub.publish(note('after the end'));
    expect(await all(first)).toEqual([note('a'), note('b'), finished]);
    expect(await all(second)).toEqual([note('b'), finished]);
    expect(hub.observers).toBe(0);
  });

  it('tells finished to an observer that comes after the end', async () => {
    const hub = new EventHub();
    hub.publish(finished);
    expect(await all(hub.observe())).toEqual([finished]);
  });

  it('hands an event to an observer that waits for it', async () => {
    const hub = new EventHub();
    const observer = hub.observe();
    const [one, two] = [observer.next(), observer.next()];
    hub.publish(note('a'));
    expect(await one).toEqual({ done: false, value: note('a') });
    hub.publish(finished);
    expect(await two).toEqual({ done: false, value: finished });
    expect(await observer.next()).toEqual({ done: true, value: undefined });
  });

  it('forgets an observer that leaves, and ends its waiting', async () => {
    const hub = new EventHub();
    const observer = hub.observe();
    const waiting = observer.next();
    await observer.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(hub.observers).toBe(0);
    hub.publish(note('nobody listens'));
    expect(await observer.next()).toEqual({ done: true, value: undefined });
  });

  it('drops only progress for a slow observer, the oldest first, and keeps the order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 600 }), async (kinds) => {
        const events = kinds.map((isProgress, n) => (isProgress ? progress(n) : note(String(n))));
        const hub = new EventHub();
        const slow = hub.observe();
        for (const event of events) hub.publish(event);
        hub.publish(finished);
        const seen = await all(slow);
        const kept = (type: string) => seen.filter((event) => event.type === type);
        expect(kept('note')).toEqual(events.filter((event) => event.type === 'note'));
        const sent = events.filter((event) => event.type === 'progress');
        expect(kept('progress')).toEqual(sent.slice(sent.length - kept('progress').length));
        expect(seen.map((event) => events.indexOf(event)).slice(0, -1)).toEqual(
          seen
            .slice(0, -1)
            .map((event) => events.indexOf(event))
            .toSorted((a, b) => a - b),
        );
        expect(seen.length).toBeLessThanOrEqual(Math.max(66, kept('note').length + 1));
      }),
    );
  });

  it('keeps the latest progress for an observer that reads after ten thousand of them', async () => {
    const hub = new EventHub();
    const slow = hub.observe();
    for (let n = 0; n < 10_000; n++) hub.publish(progress(n));
    hub.publish(finished);
    const seen = await all(slow);
    expect(seen.length).toBeLessThanOrEqual(65);
    expect(seen.at(-2)).toEqual(progress(9999));
  });

  it('gives up an observer that never reads, with an error, and serves the others', async () => {
    const hub = new EventHub();
    const dead = hub.observe();
    const alive = hub.observe();
    for (let n = 0; n < 9000; n++) {
      hub.publish(note(String(n)));
      expect(await alive.next()).toEqual({ done: false, value: note(String(n)) });
    }
    expect(hub.observers).toBe(1);
    await expect(dead.next()).rejects.toMatchObject({ code: 'E_LIMIT' });
    expect(await dead.next()).toEqual({ done: true, value: undefined });
  });
});
