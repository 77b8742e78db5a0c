// A WebSocket connection after its handshake, carried by two threads of its own: see src/frame-lane.ts.
#pragma once

#include <napi.h>

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "lane_reader.h"
#include "lane_shared.h"
#include "lane_writer.h"

namespace vmferry {

// The threads. Going, it ends and joins them; both notice at once.
class LaneThreads {
 public:
  LaneThreads(LaneShared& lane, const Bytes& prefix);
  ~LaneThreads();
  LaneThreads(const LaneThreads&) = delete;
  LaneThreads& operator=(const LaneThreads&) = delete;

 private:
  void Join();

  LaneShared& lane_;
  LaneReader reader_;
  LaneWriter writer_;
  std::thread reading_;
  std::thread writing_;
};

// new FrameLane(fd, server, maxMessageBytes, prefix, onEvent(kind, a, b, c, bytes?, text?)): duplicates fd
class FrameLane : public Napi::ObjectWrap<FrameLane> {
 public:
  static void Export(Napi::Env env, Napi::Object table);
  explicit FrameLane(const Napi::CallbackInfo& info);
  ~FrameLane() override;

 private:
  // lend(buffer): a further buffer for messages; returns its index, and messages name it
  Napi::Value Lend(const Napi::CallbackInfo& info);
  // recycle(index): the message in it was dealt with
  void Recycle(const Napi::CallbackInfo& info);
  // send(bytes, binary): returns false when the lane takes no more
  Napi::Value Send(const Napi::CallbackInfo& info);
  // ping()
  void Ping(const Napi::CallbackInfo& info);
  // close(payload): of the close frame
  void Close(const Napi::CallbackInfo& info);
  // terminate(): at once
  void Terminate(const Napi::CallbackInfo& info);

  static void OnSignal(napi_env env, napi_value callback, void* self, void* data);
  static void OnTeardown(void* self);
  void Drain(Napi::Env env, napi_value callback);
  void TakeNote(const LaneEvent& event);
  void Finish();

  struct Buffer {
    Napi::ObjectReference reference;
    Bytes bytes;
    // A message is in it, and JavaScript has it.
    bool handed_out = false;
  };

  Napi::Env env_;
  napi_threadsafe_function signal_ = nullptr;
  std::unique_ptr<LaneShared> lane_;
  std::vector<Buffer> buffers_;
  // In the order in which they go out.
  std::deque<Napi::ObjectReference> sending_;
  // After what it works on, so that it goes before.
  std::unique_ptr<LaneThreads> threads_;
};

}  // namespace vmferry
