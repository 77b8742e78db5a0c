/**
 * Numbers of QEMU's migration stream, version 3 (QEMU 2.4 to 10). All integers are big-endian.
 * Source: docs/devel/migration in QEMU's tree, and streams recorded from 7.2 and 10.0.
 */

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

/** The byte that opens a record. */
export const RecordType = {
  eof: 0x00,
  sectionStart: 0x01,
  sectionPart: 0x02,
  sectionEnd: 0x03,
  sectionFull: 0x04,
  subsection: 0x05,
  vmDescription: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** The one iterable section that this codec knows, and the version of its content. */
export const RAM_SECTION = 'ram';
export const RAM_SECTION_VERSION = 4;

/** The low 12 bits of a word in a RAM section. */
export const RamFlag = {
  fill: 0x02,
  sizes: 0x04,
  page: 0x08,
  endOfSection: 0x10,
  sameBlock: 0x20,
  xbzrle: 0x40,
  zlib: 0x100,
  multifdFlush: 0x200,
} as const;

export const RAM_FLAGS_MASK = 0xfff;
/** log2 of the page that RAM words address. */
export const PAGE_BITS = 12;

/** Source to destination, u16. */
export const Command = {
  openReturnPath: 1,
  ping: 2,
  advise: 3,
  listen: 4,
  run: 5,
  discard: 6,
  packaged: 7,
  enableColo: 8,
  resume: 9,
  recvBitmap: 10,
  switchoverStart: 11,
} as const;

/** Destination to source, u16. */
export const ReplyType = {
  shut: 1,
  pong: 2,
  requestPagesNamed: 3,
  requestPages: 4,
  recvBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const;

/** Pings at the end of post-copy's package, one behind the other: the answers mean that the device state is loaded. */
export const Ping = {
  stateLoaded: 3,
  /**
   * Of QEMU 10.2 and newer. Until it is answered the source's QEMU finishes no post-copy, and runs the guest again by
   * itself if its connection breaks.
   */
  packageLoaded: 0x42,
} as const;

/** Closes the bitmap that follows a `recvBitmap` reply. */
export const RECV_BITMAP_END = 0x0123456789abcdefn;

export const MAX_NAME_BYTES = 255;
/** Page numbers of a block fit 32 bits. */
export const MAX_BLOCK_BYTES = 2 ** 32 * 4096;
