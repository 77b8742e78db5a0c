// AF_PACKET, for announcing a guest at its new place. See packet(7).
#pragma once

#include <napi.h>

#include <memory>

#include "descriptor.h"
#include "outcome.h"

namespace vmferry {

// The socket and the eventfd that ends a wait on it. A wait on a pool thread shares them, so that closing
// the socket does not pull the descriptors from under it.
struct PacketChannel {
  PacketChannel(int socket_fd, int wake_fd) : socket(socket_fd), wake(wake_fd) {}
  Descriptor socket;
  Descriptor wake;
};

// new PacketSocket(interfaceName, receive) with interfaceIndex, mtu, hardwareAddress
class PacketSocket : public Napi::ObjectWrap<PacketSocket> {
 public:
  static void Export(Napi::Env env, Napi::Object table);
  explicit PacketSocket(const Napi::CallbackInfo& info);
  ~PacketSocket() override;

 private:
  // send(frame)
  void Send(const Napi::CallbackInfo& info);
  // receive(buffer, timeoutMs, settle): value 0 is the frame's length, 0 when none came
  void Receive(const Napi::CallbackInfo& info);
  // close(), any number of times
  void Close(const Napi::CallbackInfo& info);
  void Shut();

  std::shared_ptr<PacketChannel> channel_;
  int interface_index_ = 0;
};

}  // namespace vmferry
