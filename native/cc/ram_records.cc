// A record begins with a big-endian word of 64 bits: the page's address, which is a multiple of 4096, with flags
// in its low 12 bits. Of all there are, these two are nearly the whole of a stream:
//
//     page | same block (0x28)   4096 bytes of content
//     fill | same block (0x22)   the byte that fills the page, here only 0
//
// Everything else is the business of packages/hypervisor/src/qemu/stream, which is the model of this too.
#include "ram_records.h"

#include <cstring>

namespace vmferry {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kPageBits = 12;
constexpr uint64_t kFlagsMask = 0xfff;
constexpr uint64_t kRawFlags = 0x28;
constexpr uint64_t kFillFlags = 0x22;
constexpr uint64_t kWordBytes = 8;
constexpr uint64_t kRawRecordBytes = kWordBytes + kPageBytes;
constexpr uint64_t kFillRecordBytes = kWordBytes + 1;

// PageKind in packages/engine/src/guest.ts.
constexpr uint8_t kRaw = 0;
constexpr uint8_t kZero = 1;

uint64_t WordAt(const uint8_t* from) {
  uint64_t word = 0;
  for (uint64_t i = 0; i < kWordBytes; i++) word = word << 8 | from[i];
  return word;
}

}  // namespace

void ReadRecords(RecordRun& run) {
  while (run.count < run.max_pages && run.end - run.position >= kFillRecordBytes) {
    const uint8_t* const record = run.input.data + run.position;
    const uint64_t word = WordAt(record);
    const uint64_t flags = word & kFlagsMask;
    const uint64_t page = word >> kPageBits;
    if (page >= run.block_pages) return;
    if (flags == kRawFlags) {
      if (run.end - run.position < kRawRecordBytes) return;
      if (run.max_content - run.content_end < kPageBytes) return;
      // A caller whose arrays overlap gets nonsense, and nothing worse.
    std::memmove(run.content.data + run.content_end, record + kWordBytes, kPageBytes);
      run.content_end += kPageBytes;
      run.position += kRawRecordBytes;
      run.kinds.data[run.count] = kRaw;
    } else if (flags == kFillFlags && record[kWordBytes] == 0) {
      run.position += kFillRecordBytes;
      run.kinds.data[run.count] = kZero;
    } else {
      return;
    }
    run.pages.data[run.count] = static_cast<uint32_t>(page);
    run.count++;
    // Full is full: content that is complete waits for nothing.
    if (flags == kRawFlags && run.max_content - run.content_end < kPageBytes) return;
  }
}

}  // namespace vmferry
