/**
 * The Ethernet frames of an announcement, as bytes; nothing is sent from here.
 *
 * Every frame's source is the guest's MAC, so that each switch on its way learns the guest's new port, and
 * every frame is padded to 60 bytes (the least that Ethernet carries, without the checksum).
 */
import type { GuestIpv4, GuestIpv6, GuestMac } from '@vmferry/engine/guest-address';

const minimumFrameBytes = 60;
const broadcast = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
const noMac = new Uint8Array(6);
const noIpv4 = new Uint8Array(4);
/** ff02::1 and the MAC that RFC 2464 section 7 maps it to. */
const allNodes = Uint8Array.of(0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const allNodesMac = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

const EtherType = { ipv4: 0x0800, arp: 0x0806, rarp: 0x8035, vlan: 0x8100, ipv6: 0x86dd } as const;
const ArpOperation = { request: 1, reply: 2, reverseRequest: 3 } as const;
const nextHeaderIcmpv6 = 58;
const neighbourAdvertisement = 136;
const routerFlag = 0x80;
const overrideFlag = 0x20;
const targetLinkLayerOption = 2;

/** "ARP announcement" of RFC 5227 section 2.3: a request for the guest's own address. 60 bytes. */
export function gratuitousArpRequest(mac: GuestMac, ip: GuestIpv4): Uint8Array {
  return ethernet(
    broadcast,
    mac,
    EtherType.arp,
    arp(ArpOperation.request, mac.bytes, ip.bytes, noMac, ip.bytes),
  );
}

/**
 * The reply form, for hosts that learn from replies only. The target's MAC is the guest's own (RFC 5944
 * section 4.6); Linux takes a reply for gratuitous only when it is. 60 bytes.
 */
export function gratuitousArpReply(mac: GuestMac, ip: GuestIpv4): Uint8Array {
  return ethernet(
    broadcast,
    mac,
    EtherType.arp,
    arp(ArpOperation.reply, mac.bytes, ip.bytes, mac.bytes, ip.bytes),
  );
}

/** "Reverse request" of RFC 903 for the guest's own MAC: switches learn from it, hosts pass it over. 60 bytes. */
export function rarpAnnouncement(mac: GuestMac): Uint8Array {
  return ethernet(
    broadcast,
    mac,
    EtherType.rarp,
    arp(ArpOperation.reverseRequest, mac.bytes, noIpv4, mac.bytes, noIpv4),
  );
}

/**
 * Unsolicited neighbour advertisement (RFC 4861 sections 4.4 and 7.2.6) to all nodes, Override set and
 * Solicited clear. `router` must be true for a guest that routes: hosts strike a router off their lists
 * when it says that it is none. 86 bytes.
 */
export function unsolicitedNeighbourAdvertisement(
  mac: GuestMac,
  ip: GuestIpv6,
  options: { readonly router?: boolean } = {},
): Uint8Array {
  const message = new Uint8Array(32);
  message[0] = neighbourAdvertisement;
  message[4] = overrideFlag | (options.router === true ? routerFlag : 0);
  message.set(ip.bytes, 8);
  message[24] = targetLinkLayerOption;
  message[25] = 1; // the option's length in units of 8 bytes
  message.set(mac.bytes, 26);
  new DataView(message.buffer).setUint16(2, icmpv6Checksum(ip.bytes, allNodes, message));

  const packet = new Uint8Array(40 + message.length);
  packet[0] = 0x60;
  new DataView(packet.buffer).setUint16(4, message.length);
  packet[6] = nextHeaderIcmpv6;
  packet[7] = 255; // receivers drop anything less: it may have come through a router
  packet.set(ip.bytes, 8);
  packet.set(allNodes, 24);
  packet.set(message, 40);
  return ethernet(allNodesMac, mac, EtherType.ipv6, packet);
}

/**
 * The checksum of RFC 4443 section 2.3 over pseudo-header and message; the message's own checksum field
 * (bytes 2 and 3) counts as zero.
 */
export function icmpv6Checksum(source: Uint8Array, destination: Uint8Array, message: Uint8Array): number {
  let sum = message.length + nextHeaderIcmpv6;
  const add = (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | (bytes[at + 1] ?? 0);
  };
  add(source);
  add(destination);
  add(message.subarray(0, 2));
  add(message.subarray(4));
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** The frame with an 802.1Q tag of priority 0. `vlan` is 1 to 4094. */
export function withVlanTag(frame: Uint8Array, vlan: number): Uint8Array {
  const tagged = new Uint8Array(frame.length + 4);
  tagged.set(frame.subarray(0, 12), 0);
  const view = new DataView(tagged.buffer);
  view.setUint16(12, EtherType.vlan);
  view.setUint16(14, vlan);
  tagged.set(frame.subarray(12), 16);
  return tagged;
}

function ethernet(
  destination: Uint8Array,
  source: GuestMac,
  etherType: number,
  payload: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(Math.max(minimumFrameBytes, 14 + payload.length));
  frame.set(destination, 0);
  frame.set(source.bytes, 6);
  new DataView(frame.buffer).setUint16(12, etherType);
  frame.set(payload, 14);
  return frame;
}

/** RFC 826's packet for Ethernet and IPv4, 28 bytes. */
function arp(
  operation: number,
  senderMac: Uint8Array,
  senderIp: Uint8Array,
  targetMac: Uint8Array,
  targetIp: Uint8Array,
): Uint8Array {
  const packet = new Uint8Array(28);
  const view = new DataView(packet.buffer);
  view.setUint16(0, 1); // hardware: Ethernet
  view.setUint16(2, EtherType.ipv4);
  packet[4] = 6;
  packet[5] = 4;
  view.setUint16(6, operation);
  packet.set(senderMac, 8);
  packet.set(senderIp, 14);
  packet.set(targetMac, 18);
  packet.set(targetIp, 24);
  return packet;
}
