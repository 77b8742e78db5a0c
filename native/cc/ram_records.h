// Runs of page records in a RAM section of QEMU's migration stream (format: the head of ram_records.cc).
#pragma once

#include "outcome.h"

namespace vmferry {

// Where a run is read from, and how far it has come. ReadRecords expects
// position <= end <= input.size, count <= max_pages <= the sizes of pages and kinds,
// content_end <= max_content <= content.size; nothing else is asked of the input.
struct RecordRun {
  Bytes input;
  Words pages;
  Bytes kinds;
  Bytes content;
  uint64_t position;
  uint64_t end;
  // Pages of the block that is meant. At most 2^32.
  uint64_t block_pages;
  uint64_t count;
  uint64_t max_pages;
  uint64_t content_end;
  uint64_t max_content;
};

// Consumes records as long as they are same-block raw pages or same-block pages of zeroes, lie whole in the
// input, name pages of the block and have room in the outputs. Stops before the first that is or does not, and
// behind the page that leaves no room for the content of another.
void ReadRecords(RecordRun& run);

}  // namespace vmferry
