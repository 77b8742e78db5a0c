#include "frame_lane.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "arguments.h"

namespace vmferry {

namespace {

constexpr uint64_t kMostMessageBytes = 1024 * 1024 * 1024;
constexpr size_t kMostBuffers = 1024;
constexpr size_t kMostPrefixBytes = 64 * 1024 * 1024;
// Lets others have the event loop in between.
constexpr int kEventsAtOnce = 64;
constexpr const char* kOver = "the lane is over";

int NewWake() { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

}  // namespace

LaneThreads::LaneThreads(LaneShared& lane, const Bytes& prefix)
    : lane_(lane), reader_(lane, prefix), writer_(lane) {
  reading_ = std::thread([this] { reader_.Run(); });
  try {
    writing_ = std::thread([this] { writer_.Run(); });
  } catch (...) {
    Join();
    throw;
  }
}

LaneThreads::~LaneThreads() { Join(); }

void LaneThreads::Join() {
  lane_.Abort();
  if (reading_.joinable()) reading_.join();
  if (writing_.joinable()) writing_.join();
}

void FrameLane::Export(Napi::Env env, Napi::Object table) {
  table.Set("FrameLane",
            DefineClass(env, "FrameLane",
                        {InstanceMethod<&FrameLane::Lend>("lend"), InstanceMethod<&FrameLane::Recycle>("recycle"),
                         InstanceMethod<&FrameLane::Send>("send"), InstanceMethod<&FrameLane::Ping>("ping"),
                         InstanceMethod<&FrameLane::Close>("close"),
                         InstanceMethod<&FrameLane::Terminate>("terminate")}));
}

FrameLane::FrameLane(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FrameLane>(info), env_(info.Env()) {
  const uint32_t fd = U32Of(info[0], "fd must be a descriptor");
  if (fd > INT32_MAX) Throw(env_, Code::Bounds, "fd must be a descriptor");
  if (!info[1].IsBoolean()) Throw(env_, Code::Bounds, "server must be a boolean");
  const uint64_t max_message_bytes = IntegerOf(info[2], "maxMessageBytes must be a whole number");
  if (max_message_bytes < 1 || max_message_bytes > kMostMessageBytes) {
    Throw(env_, Code::Bounds, "maxMessageBytes must be 1 to 2^30");
  }
  const Bytes prefix = BytesOf(info[3], "prefix must be a Uint8Array");
  if (prefix.size > kMostPrefixBytes) Throw(env_, Code::Bounds, "prefix is too large");
  const Napi::Function on_event = FunctionOf(info[4], "onEvent must be a function");

  const int own_fd = fcntl(static_cast<int>(fd), F_DUPFD_CLOEXEC, 0);
  if (own_fd < 0) Throw(env_, Code::System, "the descriptor cannot be duplicated", errno);
  auto lane = std::make_unique<LaneShared>(
      own_fd, NewWake(), NewWake(), info[1].As<Napi::Boolean>().Value(), static_cast<size_t>(max_message_bytes),
      // Cannot fail while the threads live: the queue has no limit, and teardown joins them before.
      [this] { napi_call_threadsafe_function(signal_, nullptr, napi_tsfn_nonblocking); });
  if (lane->reader_wake.fd() < 0 || lane->writer_wake.fd() < 0) {
    Throw(env_, Code::System, "no eventfd", EMFILE);
  }
  int type = 0;
  socklen_t length = sizeof type;
  struct sockaddr_storage peer {};
  socklen_t peer_bytes = sizeof peer;
  if (getsockopt(own_fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0) {
    Throw(env_, Code::System, "the descriptor is no socket", errno);
  }
  if (type != SOCK_STREAM) Throw(env_, Code::Bounds, "the socket is no stream");
  if (getpeername(own_fd, reinterpret_cast<struct sockaddr*>(&peer), &peer_bytes) != 0) {
    Throw(env_, Code::System, "the socket is not connected", errno);
  }

  lane_ = std::move(lane);
  const Napi::String name = Napi::String::New(env_, "vmferry lane");
  if (napi_create_threadsafe_function(env_, on_event, nullptr, name, 0, 1, nullptr, nullptr, this, OnSignal,
                                      &signal_) != napi_ok) {
    Throw(env_, Code::System, "no way to the event loop", ENOMEM);
  }
  try {
    threads_ = std::make_unique<LaneThreads>(*lane_, prefix);
  } catch (const std::system_error& error) {
    napi_release_threadsafe_function(signal_, napi_tsfn_abort);
    Throw(env_, Code::System, "no thread could be started", error.code().value());
  }
  // Hooks run in reverse order: the threads are joined before the environment takes the signal away.
  napi_add_env_cleanup_hook(env_, OnTeardown, this);
  // Not collected while the threads use it.
  Ref();
}

FrameLane::~FrameLane() = default;

Napi::Value FrameLane::Lend(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[0], "buffer must be a Uint8Array");
  if (!lane_) Throw(env_, Code::Closed, kOver);
  if (bytes.size < lane_->max_message_bytes) Throw(env_, Code::Bounds, "buffer is smaller than a message may be");
  if (buffers_.size() >= kMostBuffers) Throw(env_, Code::Bounds, "the lane has 1024 buffers at most");
  const uint32_t index = static_cast<uint32_t>(buffers_.size());
  if (!lane_->Lend({index, bytes})) Throw(env_, Code::Closed, kOver);
  buffers_.push_back({Napi::Persistent(info[0].As<Napi::Object>()), bytes, false});
  return Napi::Number::New(env_, index);
}

void FrameLane::Recycle(const Napi::CallbackInfo& info) {
  const uint32_t index = U32Of(info[0], "index must be a buffer's");
  // Once the lane is over it has no buffers, and nothing is lost.
  if (!lane_) return;
  if (index >= buffers_.size() || !buffers_[index].handed_out) {
    Throw(env_, Code::Bounds, "the buffer was not handed out");
  }
  buffers_[index].handed_out = false;
  lane_->Lend({index, buffers_[index].bytes});
}

Napi::Value FrameLane::Send(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[0], "bytes must be a Uint8Array");
  if (!info[1].IsBoolean()) Throw(env_, Code::Bounds, "binary must be a boolean");
  const Opcode opcode = info[1].As<Napi::Boolean>().Value() ? Opcode::Binary : Opcode::Text;
  // Before a thread can have sent it.
  sending_.push_back(Napi::Persistent(info[0].As<Napi::Object>()));
  const bool taken = lane_ && lane_->Send(opcode, bytes);
  if (!taken) sending_.pop_back();
  return Napi::Boolean::New(env_, taken);
}

void FrameLane::Ping(const Napi::CallbackInfo&) {
  if (lane_) lane_->Ping();
}

void FrameLane::Close(const Napi::CallbackInfo& info) {
  const Bytes payload = BytesOf(info[0], "payload must be a Uint8Array");
  if (payload.size > kMostControlBytes || payload.size == 1) {
    Throw(env_, Code::Bounds, "the payload of a close frame has 0 or 2 to 125 bytes");
  }
  if (lane_) lane_->Close(std::vector<uint8_t>(payload.data, payload.data + payload.size));
}

void FrameLane::Terminate(const Napi::CallbackInfo&) {
  if (lane_) lane_->Abort();
}

void FrameLane::OnSignal(napi_env env, napi_value callback, void* self, void*) {
  // Without an environment this is the end of it, and the lane may be gone.
  if (env != nullptr) static_cast<FrameLane*>(self)->Drain(env, callback);
}

void FrameLane::OnTeardown(void* self) {
  auto& lane = *static_cast<FrameLane*>(self);
  lane.threads_.reset();
  lane.signal_ = nullptr;
}

// Plain N-API, because what a handler throws must neither unwind through Node nor be swallowed.
void FrameLane::Drain(Napi::Env env, napi_value callback) {
  for (int taken = 0; lane_; taken++) {
    if (taken == kEventsAtOnce) return lane_->mailbox.SignalAgain();
    const std::optional<LaneEvent> event = lane_->mailbox.Take();
    if (!event) return;
    const Napi::HandleScope scope(env);
    TakeNote(*event);

    std::array<napi_value, 6> arguments{};
    napi_value undefined = nullptr;
    bool ok = napi_get_undefined(env, &undefined) == napi_ok;
    arguments[4] = arguments[5] = undefined;
    ok = ok && napi_create_uint32(env, static_cast<uint32_t>(event->kind), &arguments[0]) == napi_ok;
    const std::array<double, 3> numbers{event->a, event->b, event->c};
    for (size_t i = 0; i < numbers.size(); i++) {
      ok = ok && napi_create_double(env, numbers[i], &arguments[1 + i]) == napi_ok;
    }
    const std::vector<uint8_t>& bytes = event->bytes;
    if (!bytes.empty()) {
      ok = ok && napi_create_buffer_copy(env, bytes.size(), bytes.data(), nullptr, &arguments[4]) == napi_ok;
    }
    if (event->text[0] != '\0') {
      ok = ok && napi_create_string_utf8(env, event->text, NAPI_AUTO_LENGTH, &arguments[5]) == napi_ok;
    }
    // An environment that is going down refuses all of this, and tears the lane down next.
    if (!ok) return;
    const bool last = event->kind == LaneEventKind::Ended;
    if (napi_call_function(env, undefined, callback, arguments.size(), arguments.data(), nullptr) ==
        napi_pending_exception) {
      napi_value thrown = nullptr;
      if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok) napi_fatal_exception(env, thrown);
    }
    // The lane may be collected from here on.
    if (last) return;
  }
}

void FrameLane::TakeNote(const LaneEvent& event) {
  switch (event.kind) {
    case LaneEventKind::Message:
      buffers_[static_cast<size_t>(event.a)].handed_out = true;
      return;
    case LaneEventKind::Sent:
      for (double count = 0; count < event.a; count++) sending_.pop_front();
      return;
    case LaneEventKind::Ended:
      Finish();
      return;
    default:
      return;
  }
}

void FrameLane::Finish() {
  // Both have posted their last. The descriptors go now and not when this is collected.
  threads_.reset();
  lane_.reset();
  buffers_.clear();
  sending_.clear();
  napi_remove_env_cleanup_hook(env_, OnTeardown, this);
  napi_release_threadsafe_function(std::exchange(signal_, nullptr), napi_tsfn_release);
  Unref();
}

}  // namespace vmferry
