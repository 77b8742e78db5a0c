// Bytes that lie in two places and leave as one stream: a bit from here, a bit from there, in turns.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "outcome.h"

namespace vmferry {

// The lengths are a copy, so that what was checked is what is used, whatever happens to the caller's arrays.
class Interleave {
 public:
  // `lengths` takes turns: bytes of `first`, bytes of `second`, bytes of `first`, ... Any of them may be 0.
  Interleave(Bytes first, Bytes second, Words lengths);

  // The lengths are exactly those of the two places. Nothing may be sent before.
  bool Fits() const;
  bool Done() const { return turn_ == lengths_.size(); }
  // sendmsg(2) of what comes next, of a bounded number of pieces. Advance by what it returned.
  ssize_t Send(int fd) const;
  void Advance(size_t sent);

 private:
  // About as much as the kernel takes at once with the socket's buffer; more would be listed in vain.
  static constexpr size_t kPieces = 128;

  void SkipEmpty();

  std::array<Bytes, 2> places_;
  std::vector<uint32_t> lengths_;
  // Where each place is read next, and how much of the present turn has gone.
  std::array<size_t, 2> at_{};
  size_t turn_ = 0;
  size_t gone_ = 0;
};

}  // namespace vmferry
