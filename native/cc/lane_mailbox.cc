#include "lane_mailbox.h"

#include <algorithm>
#include <utility>

namespace vmferry {

LaneMailbox::LaneMailbox(std::function<void()> signal) : signal_(std::move(signal)) {}

void LaneMailbox::Post(LaneEvent event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!Merge(event)) events_.push_back(std::move(event));
  if (signalled_) return;
  signalled_ = true;
  signal_();
}

bool LaneMailbox::Merge(LaneEvent& event) {
  const bool merges = event.kind == LaneEventKind::Sent || event.kind == LaneEventKind::Ping ||
                      event.kind == LaneEventKind::Pong;
  if (!merges) return false;
  const auto same = std::find_if(events_.begin(), events_.end(),
                                 [&](const LaneEvent& other) { return other.kind == event.kind; });
  if (same == events_.end()) return false;
  same->a += event.a;
  same->bytes = std::move(event.bytes);
  return true;
}

std::optional<LaneEvent> LaneMailbox::Take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (events_.empty()) {
    signalled_ = false;
    return std::nullopt;
  }
  LaneEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void LaneMailbox::SignalAgain() {
  const std::lock_guard<std::mutex> lock(mutex_);
  signalled_ = true;
  signal_();
}

}  // namespace vmferry
