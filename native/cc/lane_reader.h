// The thread that receives a lane's frames: RFC 6455, sections 5 and 7.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "frame_format.h"
#include "lane_shared.h"

namespace vmferry {

class LaneReader {
 public:
  // `prefix` was read before the lane was made.
  LaneReader(LaneShared& lane, const Bytes& prefix);
  // The thread. Returns when the lane is over.
  void Run() noexcept;

 private:
  using Clock = std::chrono::steady_clock;

  // These return false when nothing more is to be read.
  bool ReadFrame();
  bool ReadData(const FrameHead& head);
  bool ReadControl(const FrameHead& head);
  bool ReadClose(std::vector<uint8_t> payload);
  bool Need(size_t bytes);
  bool ReadPayload(uint8_t* to, size_t bytes);
  bool SkipPayload(uint64_t bytes);

  // What is wrong with a frame, and the code to close with.
  struct Complaint {
    uint16_t close_code = 0;
    const char* text = nullptr;
  };
  Complaint Check(const FrameHead& head) const;
  bool Violate(Complaint complaint);
  void Linger();

  // Waits for bytes; 0 at the end, for whatever reason.
  size_t Receive(struct iovec* pieces, size_t count);
  bool WaitReadable();
  size_t staged() const { return end_ - begin_; }

  LaneShared& lane_;
  // Bytes between the socket and their place: heads, and what came with them.
  std::vector<uint8_t> stage_;
  size_t begin_ = 0;
  size_t end_ = 0;
  // The message under way.
  bool in_message_ = false;
  bool binary_ = false;
  std::optional<LaneBuffer> buffer_;
  uint64_t filled_ = 0;
  std::optional<Clock::time_point> deadline_;
};

}  // namespace vmferry
