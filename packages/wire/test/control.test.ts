import { afterEach, describe, expect, test } from 'vitest';
import { ControlChannel } from '../src/control.ts';
import { PeerError } from '../src/errors.ts';
import { FrameKind, frameAround } from '../src/frame.ts';
import type { ControlMessage } from '../src/messages.ts';
import { pack } from '../src/packed.ts';
import { linkPair, ManualClock, pagesFrame, wireErrorFrom, wireErrorOf } from './support.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

async function channels(clock = new ManualClock()) {
  const links = await linkPair({ clock }, { clock });
  cleanups.push(links.close);
  return { source: new ControlChannel(links.near), dest: new ControlChannel(links.far), clock };
}

const failure = {
  type: 'failure',
  error: {
    code: 'E_GUEST_FAILED',
    message: 'QEMU has died',
    side: 'dest',
    phase: 'precopy',
    guestRunsOn: 'source',
    remedy: 'Look into its log.',
  },
} as const;

async function peerErrorFrom(promise: Promise<unknown>): Promise<PeerError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof PeerError)) throw new Error(`not a PeerError: ${String(error)}`);
  return error;
}

describe('the control channel', () => {
  test('carries a conversation of requests and answers', async () => {
    const { source, dest } = await channels();
    dest.onMessage = (message) => {
      if (message.type === 'clock') dest.send({ type: 'clock-reply', t0: message.t0, t1: 2, t2: 3 });
      if (message.type === 'start') dest.send({ type: 'started' });
    };
    expect(await source.request({ type: 'clock', t0: 1.5 }, 'clock-reply', 1000)).toMatchObject({
      t0: 1.5,
      t2: 3,
    });
    expect(await source.request({ type: 'start' }, ['started', 'rejected'], 1000)).toEqual({
      type: 'started',
    });
    await Promise.all([source.link.drained(), dest.link.drained()]);
  });

  test('keeps what comes before anybody asks, in order', async () => {
    const { source, dest } = await channels();
    for (const round of [1, 2, 3]) source.send({ type: 'round', round });
    source.send({ type: 'commit' });
    await source.link.drained();
    expect(await dest.expect('commit', 1000)).toEqual({ type: 'commit' });
    expect(await dest.expect('round', 1000)).toMatchObject({ round: 1 });
    const rest: ControlMessage[] = [];
    dest.onMessage = (message) => rest.push(message);
    expect(rest).toEqual([
      { type: 'round', round: 2 },
      { type: 'round', round: 3 },
    ]);
  });

  test('gives a message to who expects its type before all others', async () => {
    const { source, dest } = await channels();
    const others: string[] = [];
    dest.onMessage = ({ type }) => others.push(type);
    const sealed = dest.expect(['sealed', 'discard'], 1000);
    source.send({ type: 'round', round: 1 });
    source.send({ type: 'discard', reason: 'cancelled' });
    source.send({ type: 'discard', reason: 'again' });
    expect(await sealed).toMatchObject({ reason: 'cancelled' });
    await source.link.drained();
    expect(others).toEqual(['round', 'discard']);
  });

  test('gives up when no answer comes in time', async () => {
    const { source, clock } = await channels();
    const answer = wireErrorFrom(source.expect(['ready', 'discarded'], 3000));
    clock.advance(3000);
    expect(await answer).toMatchObject({ code: 'E_TIMEOUT' });
    expect((await answer).message).toContain('no "ready" or "discarded" came on near within 3000 ms');
  });

  test('fails what is expected when the peer fails, in its own words', async () => {
    const { source, dest } = await channels();
    const seen: string[] = [];
    source.onMessage = ({ type }) => seen.push(type);
    const answers = [source.expect('ready', 1000), source.expect('running', 1000)].map(peerErrorFrom);
    dest.send(failure);
    for (const error of await Promise.all(answers)) {
      expect(error).toMatchObject({ kind: 'failure', code: 'E_GUEST_FAILED', remedy: 'Look into its log.' });
      expect(error.report).toEqual(failure.error);
    }
    expect(seen).toEqual(['failure']);
    dest.send({ type: 'discarded' });
    expect(await source.request({ type: 'discard', reason: 'dest failed' }, 'discarded', 1000)).toBeDefined();
  });

  test('tells of a failure that nobody was there for to the next who asks, once', async () => {
    const { source, dest } = await channels();
    dest.send(failure);
    await dest.link.drained();
    expect((await peerErrorFrom(source.expect('ready', 1000))).code).toBe('E_GUEST_FAILED');
    dest.send({ type: 'ready' });
    expect(await source.expect('ready', 1000)).toEqual({ type: 'ready' });
  });

  test('hands over a failure or a refusal as a message to who expects that', async () => {
    const { source, dest } = await channels();
    const either = source.expect(['ready', 'failure'], 1000);
    dest.send(failure);
    expect(await either).toMatchObject({ type: 'failure' });
  });

  test('turns a refusal of the handshake into an error', async () => {
    const { source, dest } = await channels();
    const welcome = peerErrorFrom(source.expect('welcome', 1000));
    dest.send({ type: 'refuse', code: 'E_AUTH', message: 'wrong token', remedy: 'Use the right one.' });
    expect(await welcome).toMatchObject({ kind: 'refuse', code: 'E_AUTH', message: 'wrong token' });
  });

  test('sends the handshake outside of the numbering', async () => {
    const { source, dest } = await channels();
    source.send({
      type: 'attach',
      session: crypto.randomUUID(),
      secret: new Uint8Array(32),
      stream: { role: 'data', index: 0 },
      received: 0,
    });
    expect(await dest.expect('attach', 1000)).toMatchObject({ stream: { role: 'data', index: 0 } });
    expect(source.link.lastSent).toBe(0);
    await source.link.send(pagesFrame(1));
    expect(source.link.lastSent).toBe(1);
    await source.link.drained();
  });

  test('fails what is expected when the link ends, and whatever is asked afterwards', async () => {
    const { source, dest } = await channels();
    const before = wireErrorFrom(source.expect('ready', 1000));
    await dest.link.close();
    expect((await before).code).toBe('E_CLOSED');
    await source.link.closed;
    expect((await wireErrorFrom(source.expect('ready', 1000))).code).toBe('E_CLOSED');
    expect((await wireErrorFrom(source.request({ type: 'start' }, 'started', 1000))).code).toBe('E_CLOSED');
    expect(wireErrorOf(() => source.send({ type: 'commit' })).code).toBe('E_CLOSED');
  });

  test('answers a ping by itself', async () => {
    const { source, dest } = await channels();
    const seen: string[] = [];
    dest.onMessage = ({ type }) => seen.push(type);
    expect(await source.request({ type: 'ping' }, 'pong', 1000)).toEqual({ type: 'pong' });
    expect(seen).toEqual([]);
  });

  test('sends urgent messages past frames that wait for the window, and others in their turn', async () => {
    const links = await linkPair({ window: { minBytes: 1000, maxBytes: 1000 } }, { onFrame: () => {} });
    cleanups.push(links.close);
    const [source, dest] = [new ControlChannel(links.near), new ControlChannel(links.far)];
    const order: string[] = [];
    dest.onMessage = ({ type }) => {
      order.push(type);
      if (type === 'discard') dest.send({ type: 'discarded' });
    };
    await links.near.send(pagesFrame(5000));
    const inTurn = wireErrorFrom(source.sendInOrder({ type: 'goodbye' }));
    source.send({ type: 'discard', reason: 'now' });
    await source.expect('discarded', 1000);
    expect(order).toEqual(['discard']);
    await links.near.close();
    expect((await inTurn).code).toBe('E_CLOSED');
  });

  test.each<[string, unknown]>([
    ['of an unknown type', { type: 'teleport' }],
    ['that is not valid', { type: 'round', round: -1 }],
    ['of the handshake in the middle of the stream', { type: 'attached', received: 0 }],
  ])('drops a peer that sends a message %s', async (_what, message) => {
    const { source, dest } = await channels();
    source.link.sendNow(frameAround(FrameKind.control, pack(message)));
    const { error } = await dest.link.closed;
    expect(['E_MESSAGE', 'E_SEQUENCE']).toContain(error?.code);
    expect((await source.link.closed).error?.message).toContain(error?.code);
  });

  test('does not send a message that its peer would refuse', async () => {
    const { source } = await channels();
    expect(wireErrorOf(() => source.send({ type: 'barrier', epoch: -1, upTo: [], bytes: 0 })).code).toBe(
      'E_MESSAGE',
    );
    expect(source.link.state).toBe('open');
  });
});
