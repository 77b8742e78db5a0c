// How a WebSocket frame begins: RFC 6455, section 5.2. Nothing here waits or allocates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace vmferry {

enum class Opcode : uint8_t { Continuation = 0, Text = 1, Binary = 2, Close = 8, Ping = 9, Pong = 10 };

constexpr size_t kLeastHeadBytes = 2;
constexpr size_t kMostHeadBytes = 14;
constexpr size_t kMostControlBytes = 125;

// Close codes: RFC 6455, section 7.4.1.
constexpr uint16_t kCloseProtocolError = 1002;
constexpr uint16_t kCloseNoStatus = 1005;
constexpr uint16_t kCloseTooBig = 1009;

struct FrameHead {
  bool final = false;
  // Bits that extensions would give a meaning, and none is in use.
  bool reserved = false;
  uint8_t opcode = 0;
  bool masked = false;
  uint64_t length = 0;
  std::array<uint8_t, 4> mask{};

  bool control() const { return opcode >= 8; }
};

// How many bytes the head has that begins with these two.
size_t HeadBytes(const uint8_t* first_two);
// `bytes` are as many as HeadBytes said.
FrameHead ParseHead(const uint8_t* bytes);
// Writes the head of a whole message, with a mask of zeros if masked, and returns its size.
size_t WriteHead(std::array<uint8_t, kMostHeadBytes>& out, Opcode opcode, bool masked, uint64_t length);

// Undoes the mask on bytes that begin `offset` bytes into their frame.
void Unmask(uint8_t* data, size_t size, const std::array<uint8_t, 4>& mask, uint64_t offset);

// Whether a peer may give the code in a close frame.
bool IsCloseCode(uint16_t code);

}  // namespace vmferry
