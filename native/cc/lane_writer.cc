#include "lane_writer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

namespace vmferry {

void LaneWriter::Run() noexcept {
  try {
    for (;;) {
      const std::optional<LaneOutgoing> frame = lane_.Next();
      if (!frame || !Write(*frame)) break;
      if (frame->opcode == Opcode::Close) {
        lane_.CloseWritten();
        break;
      }
      const bool message = frame->opcode == Opcode::Binary || frame->opcode == Opcode::Text;
      if (message) lane_.mailbox.Post({LaneEventKind::Sent, 1, 0, 0, {}, ""});
    }
  } catch (const std::bad_alloc&) {
    lane_.WriteFailed("out of memory", ENOMEM);
  }
  lane_.WriterOver();
}

bool LaneWriter::Write(const LaneOutgoing& frame) {
  const bool control = static_cast<uint8_t>(frame.opcode) >= static_cast<uint8_t>(Opcode::Close);
  // sendmsg(2) takes no pointer to const; it writes nothing there.
  uint8_t* const payload = control ? const_cast<uint8_t*>(frame.payload.data()) : frame.message.data;
  const size_t payload_bytes = control ? frame.payload.size() : frame.message.size;
  std::array<uint8_t, kMostHeadBytes> head;
  const size_t head_bytes = WriteHead(head, frame.opcode, !lane_.server, payload_bytes);

  std::array<struct iovec, 2> pieces{{{head.data(), head_bytes}, {payload, payload_bytes}}};
  while (pieces[0].iov_len + pieces[1].iov_len > 0) {
    struct msghdr message {};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    const ssize_t sent = sendmsg(lane_.socket.fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      size_t done = static_cast<size_t>(sent);
      for (struct iovec& piece : pieces) {
        const size_t here = std::min(done, piece.iov_len);
        if (here == 0) continue;
        piece.iov_base = static_cast<uint8_t*>(piece.iov_base) + here;
        piece.iov_len -= here;
        done -= here;
      }
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      lane_.WriteFailed("send failed", errno);
      return false;
    }
    if (!WaitWritable()) return false;
  }
  return true;
}

bool LaneWriter::WaitWritable() {
  for (;;) {
    std::array<struct pollfd, 2> waits{
        {{lane_.socket.fd(), POLLOUT, 0}, {lane_.writer_wake.fd(), POLLIN, 0}}};
    const int ready = poll(waits.data(), waits.size(), -1);
    if (ready < 0 && errno != EINTR) {
      lane_.WriteFailed("poll failed", errno);
      return false;
    }
    if (ready <= 0) continue;
    if (waits[1].revents != 0 && lane_.WriterMustStop()) return false;
    if (waits[0].revents != 0) return true;
  }
}

}  // namespace vmferry
