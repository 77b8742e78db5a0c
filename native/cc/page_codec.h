// LZ4 blocks and XXH3 sums over memory that the caller vouches for. Safe on any thread.
#pragma once

#include "outcome.h"

namespace vmferry {

enum class Codec : uint32_t { None = 0, Lz4 = 1, Lz4Hc = 2 };

bool HasLz4();
bool HasXxhash();

extern const char* const kWithoutLz4;
extern const char* const kWithoutXxhash;

// Needs HasXxhash().
uint64_t Checksum(Bytes src, uint64_t seed);

// LZ4's own bound: what is above it is taken for it.
constexpr uint32_t kMaxAcceleration = 65537;

// Values of the outcome: bytes written, codec (None or Lz4), upper and lower half of their XXH3-64.
// `acceleration`, from 1 to kMaxAcceleration, is what Codec::Lz4 trades size for speed by.
Outcome Pack(Bytes src, Bytes dst, Codec codec, uint32_t acceleration);

// Values of the outcome: upper and lower half of the XXH3-64 of src.
Outcome Sum(Bytes src);

// Writes exactly `raw_bytes` to dst, or fails. dst is undefined after a failure.
Outcome Unpack(Bytes src, Bytes dst, Codec codec, size_t raw_bytes, uint64_t checksum);

// Four words a page: XXH3-128 in the canonical (big-endian) order of words.
Outcome HashPages(Bytes src, size_t page_bytes, Words out);

}  // namespace vmferry
