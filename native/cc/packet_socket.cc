#include "packet_socket.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>

#include "arguments.h"
#include "instance.h"

namespace vmferry {

namespace {

constexpr size_t kMinFrame = 14;
// 1500 bytes of payload, the header and one VLAN tag.
constexpr size_t kMaxFrame = 1518;
constexpr uint64_t kMaxTimeoutMs = 60'000;
constexpr const char* kClosed = "the packet socket is closed";

struct ifreq Ask(Napi::Env env, int fd, const std::string& name, unsigned long request, const char* complaint) {
  struct ifreq answer {};
  std::memcpy(answer.ifr_name, name.data(), name.size());
  if (ioctl(fd, request, &answer) != 0) {
    Throw(env, Code::System, errno == ENODEV ? "no such interface" : complaint, errno);
  }
  return answer;
}

std::string MacText(const struct sockaddr& address) {
  std::array<char, 18> text{};
  const auto byte = [&](size_t i) { return static_cast<unsigned>(static_cast<uint8_t>(address.sa_data[i])); };
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", byte(0), byte(1), byte(2), byte(3),
                byte(4), byte(5));
  return text.data();
}

// One frame that came in from outside, or value 0 when the time is over or the socket was closed.
Outcome ReceiveFrame(const PacketChannel& channel, Bytes buffer, std::chrono::milliseconds timeout) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + timeout;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    std::array<struct pollfd, 2> waits{{{channel.socket.fd(), POLLIN, 0}, {channel.wake.fd(), POLLIN, 0}}};
    const int ready = poll(waits.data(), waits.size(), static_cast<int>(std::max<long long>(left, 0)));
    if (ready < 0 && errno != EINTR) return Outcome::Failed(Code::System, "poll failed", errno);
    if (ready == 0 || (ready > 0 && waits[1].revents != 0)) return Outcome::Done(0);
    struct sockaddr_ll from {};
    socklen_t from_size = sizeof from;
    const ssize_t size = recvfrom(channel.socket.fd(), buffer.data, buffer.size, MSG_TRUNC,
                                  reinterpret_cast<struct sockaddr*>(&from), &from_size);
    if (size < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return Outcome::Failed(Code::System, "recv failed", errno);
    }
    if (from.sll_pkttype == PACKET_OUTGOING || size == 0) continue;
    if (static_cast<size_t>(size) > buffer.size) {
      return Outcome::Failed(Code::System, "a frame longer than the buffer", EMSGSIZE);
    }
    return Outcome::Done(static_cast<double>(size));
  }
}

}  // namespace

void PacketSocket::Export(Napi::Env env, Napi::Object table) {
  table.Set("PacketSocket", DefineClass(env, "PacketSocket",
                                        {InstanceMethod<&PacketSocket::Send>("send"),
                                         InstanceMethod<&PacketSocket::Receive>("receive"),
                                         InstanceMethod<&PacketSocket::Close>("close")}));
}

PacketSocket::PacketSocket(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PacketSocket>(info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) Throw(env, Code::Bounds, "interfaceName must be a string");
  const std::string name = info[0].As<Napi::String>().Utf8Value();
  if (name.empty() || name.size() >= IFNAMSIZ || name.find('\0') != std::string::npos) {
    Throw(env, Code::Bounds, "interfaceName must have 1 to 15 bytes");
  }
  const bool receive = info[1].IsBoolean() && info[1].As<Napi::Boolean>().Value();

  // Protocol 0 takes nothing in, so nothing queues up that nobody reads.
  const int socket_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_fd < 0) {
    Throw(env, Code::System, errno == EPERM ? "a packet socket needs CAP_NET_RAW" : "no packet socket", errno);
  }
  auto channel = std::make_shared<PacketChannel>(socket_fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (channel->wake.fd() < 0) Throw(env, Code::System, "no eventfd", errno);

  interface_index_ = Ask(env, socket_fd, name, SIOCGIFINDEX, "the interface has no index").ifr_ifindex;
  const int mtu = Ask(env, socket_fd, name, SIOCGIFMTU, "the interface has no MTU").ifr_mtu;
  const struct ifreq hardware = Ask(env, socket_fd, name, SIOCGIFHWADDR, "the interface has no address");
  const auto family = hardware.ifr_hwaddr.sa_family;
  if (family != ARPHRD_ETHER && family != ARPHRD_LOOPBACK) {
    Throw(env, Code::System, "not an Ethernet interface", EOPNOTSUPP);
  }

  struct sockaddr_ll address {};
  address.sll_family = AF_PACKET;
  address.sll_protocol = receive ? htons(ETH_P_ALL) : 0;
  address.sll_ifindex = interface_index_;
  if (bind(socket_fd, reinterpret_cast<struct sockaddr*>(&address), sizeof address) != 0) {
    Throw(env, Code::System, errno == ENODEV ? "no such interface" : "the packet socket does not bind", errno);
  }

  Napi::Object self = info.This().As<Napi::Object>();
  self.Set("interfaceIndex", interface_index_);
  self.Set("mtu", mtu);
  self.Set("hardwareAddress", MacText(hardware.ifr_hwaddr));
  channel_ = std::move(channel);
}

PacketSocket::~PacketSocket() { Shut(); }

void PacketSocket::Send(const Napi::CallbackInfo& info) {
  const Bytes frame = BytesOf(info[0], "frame must be a Uint8Array");
  if (frame.size < kMinFrame || frame.size > kMaxFrame) {
    Throw(info.Env(), Code::Bounds, "an Ethernet frame has 14 to 1518 bytes");
  }
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  struct sockaddr_ll to {};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = interface_index_;
  std::memcpy(&to.sll_protocol, frame.data + 12, sizeof to.sll_protocol);
  ssize_t sent;
  do {
    sent = sendto(channel_->socket.fd(), frame.data, frame.size, 0, reinterpret_cast<struct sockaddr*>(&to),
                  sizeof to);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) Throw(info.Env(), Code::System, "the frame was not sent", errno);
  if (static_cast<size_t>(sent) != frame.size) Throw(info.Env(), Code::System, "the frame was cut", EIO);
}

void PacketSocket::Receive(const Napi::CallbackInfo& info) {
  const Bytes buffer = BytesOf(info[0], "buffer must be a Uint8Array");
  if (buffer.size == 0) Throw(info.Env(), Code::Bounds, "buffer must not be empty");
  const uint64_t timeout_ms = IntegerOf(info[1], "timeoutMs must be a whole number");
  if (timeout_ms > kMaxTimeoutMs) Throw(info.Env(), Code::Bounds, "timeoutMs is at most 60000");
  const Napi::Function settle = FunctionOf(info[2], "settle must be a function");
  if (!channel_) Throw(info.Env(), Code::Closed, kClosed);
  Instance::Of(info.Env())
      .jobs.Run(info[0], info[0], settle, [channel = channel_, buffer, timeout_ms] {
        return ReceiveFrame(*channel, buffer, std::chrono::milliseconds(timeout_ms));
      });
}

void PacketSocket::Close(const Napi::CallbackInfo&) { Shut(); }

void PacketSocket::Shut() {
  if (!channel_) return;
  // Cannot fail: the counter of an eventfd takes far more than one.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(channel_->wake.fd(), &one, sizeof one);
  channel_.reset();
}

}  // namespace vmferry
