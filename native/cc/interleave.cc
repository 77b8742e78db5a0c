#include "interleave.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

namespace vmferry {

Interleave::Interleave(Bytes first, Bytes second, Words lengths)
    : places_{first, second}, lengths_(lengths.data, lengths.data + lengths.size) {
  SkipEmpty();
}

bool Interleave::Fits() const {
  // Cannot overflow: fewer than 2^32 lengths of 32 bits.
  std::array<uint64_t, 2> sums{};
  for (size_t turn = 0; turn < lengths_.size(); turn++) sums[turn % 2] += lengths_[turn];
  return sums[0] == places_[0].size && sums[1] == places_[1].size;
}

ssize_t Interleave::Send(int fd) const {
  std::array<struct iovec, kPieces> pieces;
  size_t count = 0;
  std::array<size_t, 2> at = at_;
  size_t gone = gone_;
  for (size_t turn = turn_; turn < lengths_.size() && count < pieces.size(); turn++) {
    const size_t place = turn % 2;
    const size_t length = lengths_[turn] - gone;
    gone = 0;
    if (length == 0) continue;
    pieces[count++] = {places_[place].data + at[place], length};
    at[place] += length;
  }
  struct msghdr message {};
  message.msg_iov = pieces.data();
  message.msg_iovlen = count;
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Interleave::Advance(size_t sent) {
  while (sent > 0 && !Done()) {
    const size_t step = std::min(sent, static_cast<size_t>(lengths_[turn_]) - gone_);
    at_[turn_ % 2] += step;
    gone_ += step;
    sent -= step;
    SkipEmpty();
  }
}

void Interleave::SkipEmpty() {
  while (!Done() && gone_ == lengths_[turn_]) {
    turn_++;
    gone_ = 0;
  }
}

}  // namespace vmferry
