#include "lane_reader.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace vmferry {

namespace {

// More would have more of each payload copied; less, more system calls for small frames.
constexpr size_t kStageBytes = 8 * 1024;
constexpr size_t kScratchBytes = 64 * 1024;
constexpr auto kLinger = std::chrono::seconds(2);

}  // namespace

LaneReader::LaneReader(LaneShared& lane, const Bytes& prefix)
    : lane_(lane), stage_(std::max(kStageBytes, prefix.size)), end_(prefix.size) {
  if (prefix.size > 0) std::memcpy(stage_.data(), prefix.data, prefix.size);
}

void LaneReader::Run() noexcept {
  try {
    while (ReadFrame()) {
    }
  } catch (const std::bad_alloc&) {
    lane_.ReadFailed("out of memory", ENOMEM);
  }
  lane_.ReaderOver();
}

bool LaneReader::ReadFrame() {
  if (!Need(kLeastHeadBytes)) return false;
  const size_t head_bytes = HeadBytes(stage_.data() + begin_);
  if (!Need(head_bytes)) return false;
  const FrameHead head = ParseHead(stage_.data() + begin_);
  begin_ += head_bytes;
  const Complaint complaint = Check(head);
  if (complaint.text != nullptr) return Violate(complaint);
  return head.control() ? ReadControl(head) : ReadData(head);
}

LaneReader::Complaint LaneReader::Check(const FrameHead& head) const {
  const auto wrong = [](const char* text) { return Complaint{kCloseProtocolError, text}; };
  if (head.reserved) return wrong("a frame has reserved bits set");
  if (head.masked != lane_.server) return wrong(lane_.server ? "a frame is not masked" : "a frame is masked");
  if (head.length >> 63 != 0) return wrong("a frame's length is negative");
  if (head.control()) {
    if (!head.final) return wrong("a control frame is fragmented");
    if (head.length > kMostControlBytes) return wrong("a control frame is longer than 125 bytes");
    const bool known = head.opcode <= static_cast<uint8_t>(Opcode::Pong);
    return known ? Complaint{} : wrong("a frame has an unknown opcode");
  }
  if (head.opcode > static_cast<uint8_t>(Opcode::Binary)) return wrong("a frame has an unknown opcode");
  const bool continues = head.opcode == static_cast<uint8_t>(Opcode::Continuation);
  if (continues && !in_message_) return wrong("a frame continues no message");
  if (!continues && in_message_) return wrong("a message begins within another");
  const uint64_t have = continues ? filled_ : 0;
  if (head.length > lane_.max_message_bytes - have) return {kCloseTooBig, "a message is larger than the limit"};
  return {};
}

bool LaneReader::ReadData(const FrameHead& head) {
  if (!in_message_) {
    in_message_ = true;
    binary_ = head.opcode == static_cast<uint8_t>(Opcode::Binary);
    filled_ = 0;
    LaneBuffer buffer;
    switch (lane_.Borrow(buffer)) {
      case LaneShared::Loan::Over:
        return false;
      case LaneShared::Loan::Closing:
        break;
      case LaneShared::Loan::Got:
        buffer_ = buffer;
        break;
    }
  }
  if (buffer_) {
    uint8_t* const to = buffer_->bytes.data + filled_;
    if (!ReadPayload(to, head.length)) return false;
    if (head.masked) Unmask(to, head.length, head.mask, 0);
  } else if (!SkipPayload(head.length)) {
    return false;
  }
  filled_ += head.length;
  if (!head.final) return true;
  in_message_ = false;
  if (buffer_) {
    lane_.mailbox.Post({LaneEventKind::Message, static_cast<double>(buffer_->index),
                        static_cast<double>(filled_), binary_ ? 1.0 : 0.0, {}, ""});
    buffer_.reset();
  }
  return true;
}

bool LaneReader::ReadControl(const FrameHead& head) {
  std::vector<uint8_t> payload(head.length);
  if (!ReadPayload(payload.data(), payload.size())) return false;
  if (head.masked) Unmask(payload.data(), payload.size(), head.mask, 0);
  switch (static_cast<Opcode>(head.opcode)) {
    case Opcode::Ping:
      lane_.Pong(payload);
      lane_.mailbox.Post({LaneEventKind::Ping, 0, 0, 0, std::move(payload), ""});
      return true;
    case Opcode::Pong:
      lane_.mailbox.Post({LaneEventKind::Pong, 0, 0, 0, std::move(payload), ""});
      return true;
    default:
      return ReadClose(std::move(payload));
  }
}

bool LaneReader::ReadClose(std::vector<uint8_t> payload) {
  if (payload.size() == 1) return Violate({kCloseProtocolError, "a close frame has half a code"});
  uint16_t code = kCloseNoStatus;
  if (payload.size() >= 2) {
    code = static_cast<uint16_t>(payload[0] << 8 | payload[1]);
    if (!IsCloseCode(code)) return Violate({kCloseProtocolError, "a close frame has no valid code"});
  }
  const size_t code_bytes = std::min<size_t>(payload.size(), 2);
  std::vector<uint8_t> reason(payload.begin() + static_cast<std::ptrdiff_t>(code_bytes), payload.end());
  // The answer has the code only: the reason is the peer's.
  payload.resize(code_bytes);
  lane_.mailbox.Post({LaneEventKind::Closed, static_cast<double>(code), 0, 0, std::move(reason), ""});
  lane_.PeerClosed(std::move(payload));
  Linger();
  return false;
}

bool LaneReader::Violate(Complaint complaint) {
  lane_.Violated(complaint.close_code, complaint.text);
  Linger();
  return false;
}

void LaneReader::Linger() {
  deadline_ = Clock::now() + kLinger;
  std::vector<uint8_t> scratch(kScratchBytes);
  struct iovec piece {
    scratch.data(), scratch.size()
  };
  while (Receive(&piece, 1) > 0 && Clock::now() < *deadline_) {
  }
}

bool LaneReader::Need(size_t bytes) {
  if (staged() >= bytes) return true;
  std::memmove(stage_.data(), stage_.data() + begin_, staged());
  end_ = staged();
  begin_ = 0;
  while (end_ < bytes) {
    struct iovec piece {
      stage_.data() + end_, stage_.size() - end_
    };
    const size_t got = Receive(&piece, 1);
    if (got == 0) return false;
    end_ += got;
  }
  return true;
}

bool LaneReader::ReadPayload(uint8_t* to, size_t bytes) {
  const size_t had = std::min(staged(), bytes);
  if (had > 0) std::memcpy(to, stage_.data() + begin_, had);
  begin_ += had;
  size_t have = had;
  while (have < bytes) {
    // The stage is empty, and takes the next frame's head along.
    std::array<struct iovec, 2> pieces{{{to + have, bytes - have}, {stage_.data(), stage_.size()}}};
    const size_t got = Receive(pieces.data(), pieces.size());
    if (got == 0) return false;
    const size_t here = std::min(got, bytes - have);
    have += here;
    begin_ = 0;
    end_ = got - here;
  }
  return true;
}

bool LaneReader::SkipPayload(uint64_t bytes) {
  while (bytes > 0) {
    if (staged() == 0 && !Need(1)) return false;
    const size_t skipped = static_cast<size_t>(std::min<uint64_t>(bytes, staged()));
    begin_ += skipped;
    bytes -= skipped;
  }
  return true;
}

size_t LaneReader::Receive(struct iovec* pieces, size_t count) {
  while (!lane_.aborted()) {
    struct msghdr message {};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    const ssize_t got = recvmsg(lane_.socket.fd(), &message, MSG_DONTWAIT);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      lane_.ReadFailed("recv failed", errno);
      return 0;
    }
    if (!WaitReadable()) return 0;
  }
  return 0;
}

bool LaneReader::WaitReadable() {
  for (;;) {
    int timeout_ms = -1;
    if (deadline_) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(*deadline_ - Clock::now());
      if (left.count() <= 0) return false;
      timeout_ms = static_cast<int>(left.count());
    }
    std::array<struct pollfd, 2> waits{
        {{lane_.socket.fd(), POLLIN, 0}, {lane_.reader_wake.fd(), POLLIN, 0}}};
    const int ready = poll(waits.data(), waits.size(), timeout_ms);
    if (ready < 0 && errno != EINTR) {
      lane_.ReadFailed("poll failed", errno);
      return false;
    }
    if (ready <= 0) continue;
    // What has come is read first: it may say why the writer could not go on.
    if (waits[0].revents != 0) return true;
    if (lane_.ReaderMayStop()) return false;
  }
}

}  // namespace vmferry
