/** What a destination's configuration may let an operator change in a libvirt domain's XML on its way. */
export const xmlChanges = [
  /** Title, description and metadata. */
  'metadata',
  /** Where a disk's image is: path, device, volume, or the name of a network disk. */
  'disk-source',
  /** The network, bridge or device that an interface is on. */
  'interface-source',
  /** Addresses, networks and ports that graphics listen on. */
  'graphics-listen',
  /** Which CPUs and NUMA nodes of the host it is pinned to. */
  'pinning',
  /** The path of the hypervisor, which has to be one that the destination knows. */
  'emulator',
  /** Files and sockets behind serial ports, consoles and channels. */
  'character-device-path',
] as const;

export type XmlChange = (typeof xmlChanges)[number];
