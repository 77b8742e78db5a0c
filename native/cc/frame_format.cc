#include "frame_format.h"

#include <cstring>

namespace vmferry {

namespace {

constexpr uint8_t kFinal = 0x80;
constexpr uint8_t kReserved = 0x70;
constexpr uint8_t kOpcode = 0x0f;
constexpr uint8_t kMasked = 0x80;
constexpr uint8_t kLength = 0x7f;
constexpr uint8_t kLength16 = 126;
constexpr uint8_t kLength64 = 127;
constexpr size_t kMaskBytes = 4;

uint64_t BigEndian(const uint8_t* bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; i++) value = (value << 8) | bytes[i];
  return value;
}

void PutBigEndian(uint8_t* out, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = static_cast<uint8_t>(value >> (8 * (count - 1 - i)));
}

size_t LengthBytes(uint8_t second) {
  const uint8_t length = second & kLength;
  return length == kLength16 ? 2 : length == kLength64 ? 8 : 0;
}

}  // namespace

size_t HeadBytes(const uint8_t* first_two) {
  const uint8_t second = first_two[1];
  return kLeastHeadBytes + LengthBytes(second) + ((second & kMasked) != 0 ? kMaskBytes : 0);
}

FrameHead ParseHead(const uint8_t* bytes) {
  FrameHead head;
  head.final = (bytes[0] & kFinal) != 0;
  head.reserved = (bytes[0] & kReserved) != 0;
  head.opcode = bytes[0] & kOpcode;
  head.masked = (bytes[1] & kMasked) != 0;
  const size_t more = LengthBytes(bytes[1]);
  head.length = more == 0 ? bytes[1] & kLength : BigEndian(bytes + kLeastHeadBytes, more);
  if (head.masked) std::memcpy(head.mask.data(), bytes + kLeastHeadBytes + more, kMaskBytes);
  return head;
}

size_t WriteHead(std::array<uint8_t, kMostHeadBytes>& out, Opcode opcode, bool masked, uint64_t length) {
  out[0] = static_cast<uint8_t>(kFinal | static_cast<uint8_t>(opcode));
  const size_t more = length <= kMostControlBytes ? 0 : length <= UINT16_MAX ? 2 : 8;
  const uint8_t shown = more == 0 ? static_cast<uint8_t>(length) : more == 2 ? kLength16 : kLength64;
  out[1] = static_cast<uint8_t>(shown | (masked ? kMasked : 0));
  PutBigEndian(out.data() + kLeastHeadBytes, length, more);
  size_t size = kLeastHeadBytes + more;
  if (masked) {
    std::memset(out.data() + size, 0, kMaskBytes);
    size += kMaskBytes;
  }
  return size;
}

void Unmask(uint8_t* data, size_t size, const std::array<uint8_t, 4>& mask, uint64_t offset) {
  std::array<uint8_t, 8> turned;
  for (size_t i = 0; i < turned.size(); i++) turned[i] = mask[(offset + i) % mask.size()];
  uint64_t wide;
  std::memcpy(&wide, turned.data(), sizeof wide);
  if (wide == 0) return;
  size_t at = 0;
  for (; at + sizeof wide <= size; at += sizeof wide) {
    uint64_t word;
    std::memcpy(&word, data + at, sizeof word);
    word ^= wide;
    std::memcpy(data + at, &word, sizeof word);
  }
  for (; at < size; at++) data[at] ^= turned[at % turned.size()];
}

bool IsCloseCode(uint16_t code) {
  if (code >= 3000) return code <= 4999;
  return code >= 1000 && code <= 1014 && code != 1004 && code != kCloseNoStatus && code != 1006;
}

}  // namespace vmferry
