// Finds pages of zeros.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vmferry {

using IsZero = bool (*)(const uint8_t* data, size_t size);

// The fastest test that this CPU has.
IsZero PickIsZero();

// Sets flags[i] to 1 where page i is all zeros, else to 0; returns how many are. `flags` has `pages` bytes.
size_t ScanZero(IsZero is_zero, const uint8_t* data, size_t pages, size_t page_bytes, uint8_t* flags);

}  // namespace vmferry
