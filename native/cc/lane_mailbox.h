// What the threads of a lane tell the event loop.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace vmferry {

// The numbers are those of `LaneEvent` in src/addon.ts.
enum class LaneEventKind : uint32_t {
  // a: buffer, b: bytes, c: whether it is binary
  Message = 1,
  // a: how many of the messages sent were written since the last time
  Sent = 2,
  // bytes: what came with it
  Ping = 3,
  Pong = 4,
  // The peer's close frame. a: code; bytes: reason
  Closed = 5,
  // The peer broke the protocol. a: close code that it was told; text
  Violation = 6,
  // The connection is lost. a: errno; text
  Failed = 7,
  // Both threads are done; always the last.
  Ended = 8,
};

struct LaneEvent {
  LaneEventKind kind = LaneEventKind::Ended;
  double a = 0;
  double b = 0;
  double c = 0;
  // At most what a control frame holds.
  std::vector<uint8_t> bytes;
  // A literal.
  const char* text = "";
};

// Bounded whatever the peer does: messages by the buffers that the lane has, sends, pings and pongs because
// those that were not taken yet are one event, and the others come once.
class LaneMailbox {
 public:
  // `signal` asks the event loop to take events; called with the mailbox locked, once for all that wait.
  explicit LaneMailbox(std::function<void()> signal);

  void Post(LaneEvent event);
  // Nothing when the mailbox is empty; the next event then signals again.
  std::optional<LaneEvent> Take();
  // The event loop stopped taking before the mailbox was empty.
  void SignalAgain();

 private:
  bool Merge(LaneEvent& event);

  std::mutex mutex_;
  std::deque<LaneEvent> events_;
  std::function<void()> signal_;
  bool signalled_ = false;
};

}  // namespace vmferry
