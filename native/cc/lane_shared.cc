#include "lane_shared.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace vmferry {

namespace {

using Lock = std::lock_guard<std::mutex>;

void WaitFor(const Wake& wake) {
  struct pollfd wait {
    wake.fd(), POLLIN, 0
  };
  // Whoever waits looks at the state again, so that an interrupted wait does no harm.
  poll(&wait, 1, -1);
  wake.Clear();
}

}  // namespace

void Wake::Ring() const {
  // Cannot fail: the counter of an eventfd takes far more than is rung.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(descriptor_.fd(), &one, sizeof one);
}

void Wake::Clear() const {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(descriptor_.fd(), &count, sizeof count);
}

bool LaneShared::Lend(LaneBuffer buffer) {
  const Lock lock(mutex_);
  if (reader_over_ || aborted_) return false;
  free_.push_back(buffer);
  // With others free the reader does not wait.
  if (free_.size() == 1) reader_wake.Ring();
  return true;
}

bool LaneShared::Send(Opcode opcode, Bytes message) {
  const Lock lock(mutex_);
  if (close_queued_ || aborted_ || writer_over_) return false;
  queue_.push_back({opcode, message, {}});
  WakeWriter();
  return true;
}

bool LaneShared::Ping() {
  const Lock lock(mutex_);
  if (close_queued_ || aborted_ || writer_over_) return false;
  ping_.emplace();
  WakeWriter();
  return true;
}

bool LaneShared::Close(std::vector<uint8_t> payload) {
  const Lock lock(mutex_);
  if (close_queued_ || aborted_ || writer_over_) return false;
  QueueClose(std::move(payload));
  // A reader that waits for a buffer has no more use for one.
  reader_wake.Ring();
  return true;
}

void LaneShared::Abort() {
  {
    const Lock lock(mutex_);
    if (aborted_) return;
    aborted_ = true;
  }
  reader_wake.Ring();
  writer_wake.Ring();
  shutdown(socket.fd(), SHUT_RDWR);
}

LaneShared::Loan LaneShared::Borrow(LaneBuffer& buffer) {
  for (;;) {
    {
      const Lock lock(mutex_);
      if (aborted_ || write_failure_ != nullptr) return Loan::Over;
      if (close_queued_) return Loan::Closing;
      if (!free_.empty()) {
        buffer = free_.front();
        free_.pop_front();
        return Loan::Got;
      }
    }
    WaitFor(reader_wake);
  }
}

bool LaneShared::ReaderMayStop() {
  reader_wake.Clear();
  const Lock lock(mutex_);
  return aborted_ || write_failure_ != nullptr;
}

void LaneShared::Pong(std::vector<uint8_t> payload) {
  const Lock lock(mutex_);
  if (close_queued_ || aborted_ || writer_over_) return;
  pong_ = std::move(payload);
  WakeWriter();
}

void LaneShared::PeerClosed(std::vector<uint8_t> payload) {
  const Lock lock(mutex_);
  peer_done_ = true;
  if (!close_queued_) QueueClose(std::move(payload));
  Conclude();
}

void LaneShared::Violated(uint16_t close_code, const char* text) {
  {
    const Lock lock(mutex_);
    peer_done_ = true;
    if (!close_queued_) {
      QueueClose({static_cast<uint8_t>(close_code >> 8), static_cast<uint8_t>(close_code & 0xff)});
    }
    Conclude();
  }
  mailbox.Post({LaneEventKind::Violation, static_cast<double>(close_code), 0, 0, {}, text});
}

void LaneShared::ReadFailed(const char* text, int system_errno) {
  const Lock lock(mutex_);
  Fail(text, system_errno);
}

void LaneShared::ReaderOver() {
  const Lock lock(mutex_);
  if (write_failure_ != nullptr) Fail(write_failure_, write_errno_);
  Over(reader_over_, writer_wake);
}

std::optional<LaneOutgoing> LaneShared::Next() {
  for (;;) {
    {
      const Lock lock(mutex_);
      writer_sleeps_ = false;
      if (aborted_ || reader_over_) return std::nullopt;
      for (auto* control : {&pong_, &ping_}) {
        if (!control->has_value()) continue;
        LaneOutgoing frame{control == &pong_ ? Opcode::Pong : Opcode::Ping, {}, std::move(**control)};
        control->reset();
        return frame;
      }
      if (!queue_.empty()) {
        LaneOutgoing next = std::move(queue_.front());
        queue_.pop_front();
        return next;
      }
      writer_sleeps_ = true;
    }
    WaitFor(writer_wake);
  }
}

bool LaneShared::WriterMustStop() {
  writer_wake.Clear();
  const Lock lock(mutex_);
  return aborted_ || reader_over_;
}

void LaneShared::CloseWritten() {
  const Lock lock(mutex_);
  close_written_ = true;
  Conclude();
}

void LaneShared::WriteFailed(const char* text, int system_errno) {
  const Lock lock(mutex_);
  // The reader tells it, when it has read what the peer had to say before.
  write_failure_ = text;
  write_errno_ = system_errno;
}

void LaneShared::WriterOver() {
  const Lock lock(mutex_);
  Over(writer_over_, reader_wake);
}

void LaneShared::QueueClose(std::vector<uint8_t> payload) {
  close_queued_ = true;
  queue_.push_back({Opcode::Close, {}, std::move(payload)});
  WakeWriter();
}

void LaneShared::WakeWriter() {
  if (!writer_sleeps_) return;
  writer_sleeps_ = false;
  writer_wake.Ring();
}

// RFC 6455, section 7.1.1: the server is the first to close the connection.
void LaneShared::Conclude() {
  if (close_written_ && peer_done_ && server) shutdown(socket.fd(), SHUT_WR);
}

// After a close frame, and after our own end, the loss of the connection is nobody's loss.
void LaneShared::Fail(const char* text, int system_errno) {
  if (aborted_ || peer_done_) return;
  aborted_ = true;
  mailbox.Post({LaneEventKind::Failed, static_cast<double>(system_errno), 0, 0, {}, text});
}

void LaneShared::Over(bool& which, const Wake& other) {
  which = true;
  if (reader_over_ && writer_over_) mailbox.Post({});
  else other.Ring();
}

}  // namespace vmferry
