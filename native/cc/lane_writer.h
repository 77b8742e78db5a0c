// The thread that sends a lane's frames.
#pragma once

#include "lane_shared.h"

namespace vmferry {

class LaneWriter {
 public:
  explicit LaneWriter(LaneShared& lane) : lane_(lane) {}
  // The thread. Returns when the close frame was sent or the lane is over.
  void Run() noexcept;

 private:
  // False: the connection is lost, or the lane over.
  bool Write(const LaneOutgoing& frame);
  bool WaitWritable();

  LaneShared& lane_;
};

}  // namespace vmferry
