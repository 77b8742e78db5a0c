#include "local_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "arguments.h"
#include "interleave.h"

namespace vmferry {

namespace {

constexpr const char* kClosed = "the local socket is closed";
constexpr uint64_t kMaxLingerMs = 1000;
constexpr uint64_t kMaxSendBufferBytes = 1024 * 1024 * 1024;

// What a wait came to. Closed: somebody called close().
enum class Wait { Ready, TimedOut, Closed, Failed };

Wait WaitFor(const LocalChannel& channel, short events, int timeout_ms) {
  for (;;) {
    std::array<struct pollfd, 2> waits{{{channel.socket.fd(), events, 0}, {channel.wake.fd(), POLLIN, 0}}};
    const int ready = poll(waits.data(), waits.size(), timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return Wait::Failed;
    if (waits[1].revents != 0) return Wait::Closed;
    return ready == 0 ? Wait::TimedOut : Wait::Ready;
  }
}

Outcome ReceiveBytes(const LocalChannel& channel, Bytes buffer, size_t at_least, int linger_ms) {
  size_t have = 0;
  while (have < buffer.size) {
    const ssize_t got = recv(channel.socket.fd(), buffer.data + have, buffer.size - have, MSG_DONTWAIT);
    if (got > 0) {
      have += static_cast<size_t>(got);
      continue;
    }
    if (got == 0) break;
    if (errno == EINTR) continue;
    // A peer that died has closed, for whoever reads: what it had sent was read before.
    if (errno == ECONNRESET) break;
    if (errno != EAGAIN) return Outcome::Failed(Code::System, "recv failed", errno);
    if (have >= at_least && have > 0) break;
    const Wait wait = WaitFor(channel, POLLIN, have == 0 ? -1 : linger_ms);
    if (wait == Wait::Failed) return Outcome::Failed(Code::System, "poll failed", errno);
    if (wait == Wait::Closed || wait == Wait::TimedOut) break;
  }
  return Outcome::Done(static_cast<double>(have));
}

// One piece, with the interface of Interleave.
class Whole {
 public:
  explicit Whole(Bytes bytes) : left_(bytes) {}
  bool Done() const { return left_.size == 0; }
  ssize_t Send(int fd) const { return send(fd, left_.data, left_.size, MSG_DONTWAIT | MSG_NOSIGNAL); }
  void Advance(size_t sent) { left_ = {left_.data + sent, left_.size - sent}; }

 private:
  Bytes left_;
};

template <typename Source>
Outcome SendAll(const LocalChannel& channel, Source& source) {
  while (!source.Done()) {
    const ssize_t sent = source.Send(channel.socket.fd());
    if (sent >= 0) {
      source.Advance(static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    const int why = errno;
    // Closing shuts the socket down, and then sends fail too.
    const Wait wait = WaitFor(channel, POLLOUT, why == EAGAIN ? -1 : 0);
    if (wait != Wait::Closed && why != EAGAIN) return Outcome::Failed(Code::System, "send failed", why);
    if (wait == Wait::Failed) return Outcome::Failed(Code::System, "poll failed", errno);
    if (wait == Wait::Closed) return Outcome::Failed(Code::Closed, kClosed);
  }
  return Outcome::Done();
}

int NewWake(Napi::Env env) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) Throw(env, Code::System, "no eventfd", errno);
  return fd;
}

}  // namespace

void LocalChannel::Interrupt() const {
  // Cannot fail: the counter of an eventfd takes far more than one.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake.fd(), &one, sizeof one);
}

void LocalSocket::Export(Napi::Env env, Napi::Object table) {
  table.Set("LocalSocket",
            DefineClass(env, "LocalSocket",
                        {InstanceMethod<&LocalSocket::Accept>("accept"), InstanceMethod<&LocalSocket::Adopt>("adopt"),
                         InstanceMethod<&LocalSocket::Receive>("receive"), InstanceMethod<&LocalSocket::Send>("send"),
                         InstanceMethod<&LocalSocket::SendInterleaved>("sendInterleaved"),
                         InstanceMethod<&LocalSocket::TrySend>("trySend"),
                         InstanceMethod<&LocalSocket::PeerPid>("peerPid"),
                         InstanceMethod<&LocalSocket::Close>("close")}));
}

LocalSocket::LocalSocket(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LocalSocket>(info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) Throw(env, Code::Bounds, "path must be a string");
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
    Throw(env, Code::Bounds, "path must have 1 to 107 bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool listens = info[1].IsBoolean() && info[1].As<Napi::Boolean>().Value();
  const uint64_t send_buffer_bytes = IntegerOf(info[2], "sendBufferBytes must be a whole number");
  if (send_buffer_bytes > kMaxSendBufferBytes) Throw(env, Code::Bounds, "sendBufferBytes is at most 1 GiB");

  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) Throw(env, Code::System, "no socket", errno);
  auto channel = std::make_shared<LocalChannel>(fd, NewWake(env));
  const auto* name = reinterpret_cast<const struct sockaddr*>(&address);
  // Force needs CAP_NET_ADMIN; without it the system's own limit holds, which is a matter of speed only.
  const int room = static_cast<int>(send_buffer_bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  }
  if (listens) {
    if (bind(fd, name, sizeof address) != 0) Throw(env, Code::System, "the socket does not bind", errno);
    if (listen(fd, 1) != 0) Throw(env, Code::System, "the socket does not listen", errno);
  } else if (connect(fd, name, sizeof address) != 0) {
    Throw(env, Code::System, "the socket does not connect", errno);
  }
  channel_ = std::move(channel);
}

LocalSocket::~LocalSocket() { Shut(); }

void LocalSocket::Accept(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Function settle = FunctionOf(info[0], "settle must be a function");
  if (!channel_) Throw(env, Code::Closed, kClosed);
  accepted_ = std::make_shared<std::shared_ptr<LocalChannel>>();
  ThreadOf(env, receiving_).Run({info.This()}, settle, [channel = channel_, accepted = accepted_] {
    for (;;) {
      const int fd = accept4(channel->socket.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        *accepted = std::make_shared<LocalChannel>(fd, wake);
        return wake < 0 ? Outcome::Failed(Code::System, "no eventfd", errno) : Outcome::Done(1);
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN) return Outcome::Failed(Code::System, "accept failed", errno);
      const Wait wait = WaitFor(*channel, POLLIN, -1);
      if (wait == Wait::Failed) return Outcome::Failed(Code::System, "poll failed", errno);
      if (wait == Wait::Closed) return Outcome::Done(0);
    }
  });
}

void LocalSocket::Adopt(const Napi::CallbackInfo& info) {
  if (!channel_ || !accepted_ || !*accepted_) Throw(info.Env(), Code::Closed, kClosed);
  channel_ = std::move(*accepted_);
  accepted_.reset();
  // That thread knows the listener.
  if (receiving_) receiving_->End();
  receiving_.reset();
}

void LocalSocket::Receive(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[0], "buffer must be a Uint8Array");
  if (buffer.size == 0) Throw(info.Env(), Code::Bounds, "buffer must not be empty");
  const uint64_t at_least = IntegerOf(info[1], "atLeast must be a whole number");
  if (at_least > buffer.size) Throw(info.Env(), Code::Bounds, "atLeast is more than the buffer holds");
  const uint64_t linger_ms = IntegerOf(info[2], "lingerMs must be a whole number");
  if (linger_ms > kMaxLingerMs) Throw(info.Env(), Code::Bounds, "lingerMs is at most 1000");
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  ThreadOf(info.Env(), receiving_)
      .Run({info.This(), info[0]}, settle, [channel = channel_, buffer, at_least, linger_ms] {
        return ReceiveBytes(*channel, buffer, static_cast<size_t>(at_least), static_cast<int>(linger_ms));
      });
}

void LocalSocket::Send(const Napi::CallbackInfo& info) {
  const Bytes bytes = BytesOf(info[0], "bytes must be a Uint8Array");
  const Napi::Function settle = FunctionOf(info[1], "settle must be a function");
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  RunSend(info, {info.This(), info[0]}, settle, Whole(bytes));
}

void LocalSocket::SendInterleaved(const Napi::CallbackInfo& info) {
  const Bytes first = BytesOf(info[0], "first must be a Uint8Array");
  const Bytes second = BytesOf(info[1], "second must be a Uint8Array");
  const Words lengths = WordsOf(info[2], "lengths must be a Uint32Array");
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  Interleave interleave(first, second, lengths);
  if (!interleave.Fits()) Throw(info.Env(), Code::Bounds, "lengths must add up to those of first and second");
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  RunSend(info, {info.This(), info[0], info[1]}, settle, std::move(interleave));
}

template <typename Source>
void LocalSocket::RunSend(const Napi::CallbackInfo& info, std::initializer_list<Napi::Value> keep,
                          const Napi::Function& settle, Source source) {
  ThreadOf(info.Env(), sending_).Run(keep, settle, [channel = channel_, source = std::move(source)]() mutable {
    return SendAll(*channel, source);
  });
}

JobThread& LocalSocket::ThreadOf(Napi::Env env, std::shared_ptr<JobThread>& slot) {
  if (!slot) slot = JobThread::Start(env, [channel = channel_] { channel->Interrupt(); });
  return *slot;
}

Napi::Value LocalSocket::TrySend(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Bytes bytes = BytesOf(info[0], "bytes must be a Uint8Array");
  if (!channel_) Throw(env, Code::Closed, kClosed);
  // Sends that wait on the thread go first.
  if (sending_ && !sending_->Idle()) return Napi::Number::New(env, 0);
  size_t done = 0;
  while (done < bytes.size) {
    const ssize_t sent = send(channel_->socket.fd(), bytes.data + done, bytes.size - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      done += static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      Throw(env, Code::System, "send failed", errno);
    }
  }
  return Napi::Number::New(env, static_cast<double>(done));
}

Napi::Value LocalSocket::PeerPid(const Napi::CallbackInfo& info) {
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  struct ucred peer {};
  socklen_t size = sizeof peer;
  const bool known = getsockopt(channel_->socket.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
  return Napi::Number::New(info.Env(), known && peer.pid > 0 ? peer.pid : 0);
}

void LocalSocket::Close(const Napi::CallbackInfo&) { Shut(); }

void LocalSocket::Shut() {
  if (!channel_) return;
  channel_->Interrupt();
  for (auto* thread : {&receiving_, &sending_}) {
    if (*thread) (*thread)->End();
    thread->reset();
  }
  shutdown(channel_->socket.fd(), SHUT_RDWR);
  channel_.reset();
  accepted_.reset();
}

}  // namespace vmferry
