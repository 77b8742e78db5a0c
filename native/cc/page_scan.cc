#include "page_scan.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vmferry {
namespace {

uint64_t Word(const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

bool IsZeroTail(const uint8_t* data, size_t size) {
  uint8_t any = 0;
  for (size_t i = 0; i < size; i++) any |= data[i];
  return any == 0;
}

bool IsZeroPortable(const uint8_t* data, size_t size) {
  size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    const uint8_t* at = data + i;
    const uint64_t any = Word(at) | Word(at + 8) | Word(at + 16) | Word(at + 24) | Word(at + 32) |
                         Word(at + 40) | Word(at + 48) | Word(at + 56);
    if (any != 0) return false;
  }
  return IsZeroTail(data + i, size - i);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) bool IsZeroAvx2(const uint8_t* data, size_t size) {
  size_t i = 0;
  for (; i + 128 <= size; i += 128) {
    const auto* at = reinterpret_cast<const __m256i*>(data + i);
    const __m256i low = _mm256_or_si256(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1));
    const __m256i high = _mm256_or_si256(_mm256_loadu_si256(at + 2), _mm256_loadu_si256(at + 3));
    const __m256i any = _mm256_or_si256(low, high);
    if (!_mm256_testz_si256(any, any)) return false;
  }
  return IsZeroPortable(data + i, size - i);
}
#endif

}  // namespace

IsZero PickIsZero() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return IsZeroAvx2;
#endif
  return IsZeroPortable;
}

size_t ScanZero(IsZero is_zero, const uint8_t* data, size_t pages, size_t page_bytes, uint8_t* flags) {
  size_t found = 0;
  for (size_t page = 0; page < pages; page++) {
    const bool zero = is_zero(data + page * page_bytes, page_bytes);
    flags[page] = zero ? 1 : 0;
    found += zero ? 1 : 0;
  }
  return found;
}

}  // namespace vmferry
