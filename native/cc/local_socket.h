// A UNIX stream socket whose reads and writes, copies included, happen on two threads of its own. See unix(7).
#pragma once

#include <napi.h>

#include <memory>

#include "descriptor.h"
#include "job_thread.h"
#include "outcome.h"

namespace vmferry {

// A wait on a thread shares the descriptors, so that closing does not pull them from under it.
struct LocalChannel {
  LocalChannel(int socket_fd, int wake_fd) : socket(socket_fd), wake(wake_fd) {}
  // Ends every wait, now and later.
  void Interrupt() const;
  Descriptor socket;
  Descriptor wake;
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
  // Sends all of `source` after the sends before it.
  template <typename Source>
  void RunSend(const Napi::CallbackInfo& info, std::initializer_list<Napi::Value> keep, const Napi::Function& settle,
               Source source);
  // The thread of `slot`, which starts when it is first asked for.
  JobThread& ThreadOf(Napi::Env env, std::shared_ptr<JobThread>& slot);
  void Shut();

  std::shared_ptr<LocalChannel> channel_;
  std::shared_ptr<std::shared_ptr<LocalChannel>> accepted_;
  // receive() and accept(); send(), whose order is that of the calls.
  std::shared_ptr<JobThread> receiving_;
  std::shared_ptr<JobThread> sending_;
};

}  // namespace vmferry
