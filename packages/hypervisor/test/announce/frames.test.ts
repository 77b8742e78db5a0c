import { type GuestIpv4, type GuestIpv6, parseIp, parseMac } from '@vmferry/engine/guest-address';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  gratuitousArpReply,
  gratuitousArpRequest,
  icmpv6Checksum,
  rarpAnnouncement,
  unsolicitedNeighbourAdvertisement,
  withVlanTag,
} from '../../src/announce/frames.ts';

const mac = parseMac('52:54:00:12:34:56');
const ipv4 = parseIp('192.0.2.7') as GuestIpv4;
const ipv6 = parseIp('2001:db8::7') as GuestIpv6;

/** Hexadecimal as standards print it, padded with zeros to `length` bytes. */
const frame = (hex: string, length: number) => {
  const bytes = new Uint8Array(length);
  bytes.set(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));
  return bytes;
};

describe('the frames of an announcement', () => {
  it('ask for the own address in the request form of gratuitous ARP', () => {
    expect(gratuitousArpRequest(mac, ipv4)).toEqual(
      frame(
        `ffffffffffff 525400123456 0806
         0001 0800 06 04 0001  525400123456 c0000207  000000000000 c0000207`,
        60,
      ),
    );
  });

  it('answer with the own address in the reply form of gratuitous ARP', () => {
    expect(gratuitousArpReply(mac, ipv4)).toEqual(
      frame(
        `ffffffffffff 525400123456 0806
         0001 0800 06 04 0002  525400123456 c0000207  525400123456 c0000207`,
        60,
      ),
    );
  });

  it('send a reverse request without any address for the MAC alone', () => {
    expect(rarpAnnouncement(mac)).toEqual(
      frame(
        `ffffffffffff 525400123456 8035
         0001 0800 06 04 0003  525400123456 00000000  525400123456 00000000`,
        60,
      ),
    );
  });

  it('advertise an IPv6 address to all nodes, unasked and overriding', () => {
    const sent = unsolicitedNeighbourAdvertisement(mac, ipv6);
    expect(sent).toEqual(
      frame(
        `333300000001 525400123456 86dd
         60000000 0020 3a ff  20010db8000000000000000000000007  ff020000000000000000000000000001
         88 00 7463 20000000  20010db8000000000000000000000007
         02 01 525400123456`,
        86,
      ),
    );
    expect(onesComplementSum(sent)).toBe(0xffff);
  });

  it('say that a router is one, with a checksum that knows it', () => {
    const sent = unsolicitedNeighbourAdvertisement(mac, ipv6, { router: true });
    expect(sent[58]).toBe(0xa0);
    expect(onesComplementSum(sent)).toBe(0xffff);
  });

  it('carry a right checksum for every MAC and address', () => {
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    fc.assert(
      fc.property(bytes(5), bytes(15), fc.boolean(), (macTail, ipTail, router) => {
        const anyMac = parseMac(`52:${Buffer.from(macTail).toString('hex').match(/../g)!.join(':')}`);
        const words = Buffer.from(Uint8Array.of(0x20, ...ipTail))
          .toString('hex')
          .match(/..../g)!;
        const sent = unsolicitedNeighbourAdvertisement(anyMac, parseIp(words.join(':')) as GuestIpv6, {
          router,
        });
        expect(onesComplementSum(sent)).toBe(0xffff);
      }),
    );
  });

  it('are all sent from the MAC of the guest and at least 60 bytes long', () => {
    const all = [
      gratuitousArpRequest(mac, ipv4),
      gratuitousArpReply(mac, ipv4),
      rarpAnnouncement(mac),
      unsolicitedNeighbourAdvertisement(mac, ipv6),
    ];
    for (const sent of all) {
      expect(sent.subarray(6, 12)).toEqual(mac.bytes);
      expect(sent.length).toBeGreaterThanOrEqual(60);
    }
  });

  it('can carry a VLAN tag between addresses and type, and lose nothing', () => {
    const plain = gratuitousArpRequest(mac, ipv4);
    const tagged = withVlanTag(plain, 0xabc);
    expect(Buffer.from(tagged.subarray(12, 18)).toString('hex')).toBe('81000abc0806');
    expect(Uint8Array.of(...tagged.subarray(0, 12), ...tagged.subarray(16))).toEqual(plain);
  });
});

describe('icmpv6Checksum', () => {
  it('agrees with a sum done by hand, whatever stands in the field of the checksum', () => {
    const source = parseIp('fe80::1').bytes;
    // Pseudo-header and header words summed by hand: fe80 + 1 + ff02 + 1 + 4 + 3a + 8700 = 0x284c2, so ~0x84c4.
    const destination = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
    expect(icmpv6Checksum(source, destination, Uint8Array.of(0x87, 0, 0xde, 0xad))).toBe(0x7b3b);
  });
});

/** Over pseudo-header and message with the checksum in place: 0xffff when it is right (RFC 1071). */
function onesComplementSum(sent: Uint8Array): number {
  const message = sent.subarray(54);
  const summed = Buffer.concat([
    sent.subarray(22, 54),
    Uint8Array.of(0, 0, 0, message.length, 0, 0, 0, 58),
    message,
  ]);
  let sum = 0n;
  for (let at = 0; at < summed.length; at += 2) sum += BigInt(summed.readUInt16BE(at));
  return Number(sum % 0xffffn) || 0xffff;
}
