// A UNIX stream socket whose reads and writes, copies included, happen on pool threads. See unix(7).
#pragma once

#include <napi.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "descriptor.h"
#include "outcome.h"

namespace vmferry {

// A wait on a pool thread shares the descriptors, so that closing does not pull them from under it.
struct LocalChannel {
  LocalChannel(int socket_fd, int wake_fd) : socket(socket_fd), wake(wake_fd) {}
  Descriptor socket;
  Descriptor wake;
  // Sends go out in the order of the calls, so that the next one can wait on a thread already.
  std::mutex mutex;
  std::condition_variable turn;
  uint64_t tickets = 0;
  uint64_t serving = 0;
};

// new LocalSocket(path, listen, sendBufferBytes): connected to a listener at `path`, or a listener there itself
class LocalSocket : public Napi::ObjectWrap<LocalSocket> {
 public:
  static void Export(Napi::Env env, Napi::Object table);
  explicit LocalSocket(const Napi::CallbackInfo& info);
  ~LocalSocket() override;

 private:
  // accept(settle): a listener becomes the first connection that it gets; value 0 is 1, or 0 if closed before
  void Accept(const Napi::CallbackInfo& info);
  // adopt(): takes over what accept brought; on the event loop
  void Adopt(const Napi::CallbackInfo& info);
  // receive(buffer, atLeast, lingerMs, settle): value 0 is the bytes read, 0 at the end or when closed
  void Receive(const Napi::CallbackInfo& info);
  // send(bytes, settle)
  void Send(const Napi::CallbackInfo& info);
  // sendInterleaved(first, second, lengths, settle): lengths of pieces, in turns of first and of second
  void SendInterleaved(const Napi::CallbackInfo& info);
  // trySend(bytes): on the calling thread, without waiting; returns how many went
  Napi::Value TrySend(const Napi::CallbackInfo& info);
  // peerPid(): the process that connected, or listened, at the other end; 0 if it cannot be told
  Napi::Value PeerPid(const Napi::CallbackInfo& info);
  // close(), any number of times
  void Close(const Napi::CallbackInfo& info);
  // Sends all of `source` on a pool thread, when its turn has come.
  template <typename Source>
  void RunSend(const Napi::Value& first, const Napi::Value& second, const Napi::Function& settle, Source source);
  void Shut();

  std::shared_ptr<LocalChannel> channel_;
  std::shared_ptr<std::shared_ptr<LocalChannel>> accepted_;
};

}  // namespace vmferry
