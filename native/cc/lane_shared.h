// What the two threads of a lane and the event loop share.
//
//              close frame queued, or one received         both frames exchanged, or a violation told
//     open ───────────────────────────────────────▶ closing ────────────────────────────────▶ lingering
//      │                                               │                                          │
//      └── end of the stream, error, Abort() ──────────┴─────────────────▶ over ◀─────────────────┘
//
// Closing: nothing of ours goes out after the close frame, and messages of the peer are read and dropped.
// Lingering: what comes is dropped, so that the kernel does not answer it with a reset that overtakes our
// close frame; for two seconds at most. The reader is the one who finds the end: the writer follows it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "descriptor.h"
#include "frame_format.h"
#include "lane_mailbox.h"
#include "outcome.h"

namespace vmferry {

// Wakes the thread that waits for the descriptor; see eventfd(2).
class Wake {
 public:
  explicit Wake(int fd) : descriptor_(fd) {}
  int fd() const { return descriptor_.fd(); }
  void Ring() const;
  void Clear() const;

 private:
  Descriptor descriptor_;
};

// Memory that JavaScript has lent for one message. Stays referenced until the lane's threads are gone.
struct LaneBuffer {
  uint32_t index = 0;
  Bytes bytes;
};

struct LaneOutgoing {
  Opcode opcode = Opcode::Binary;
  // Belongs to JavaScript, and stays referenced until the lane has told that it was sent.
  Bytes message;
  // Of a control frame.
  std::vector<uint8_t> payload;
};

struct LaneShared {
  LaneShared(int socket_fd, int reader_fd, int writer_fd, bool is_server, size_t max_bytes,
             std::function<void()> signal)
      : socket(socket_fd),
        reader_wake(reader_fd),
        writer_wake(writer_fd),
        server(is_server),
        max_message_bytes(max_bytes),
        mailbox(std::move(signal)) {}

  const Descriptor socket;
  const Wake reader_wake;
  const Wake writer_wake;
  const bool server;
  const size_t max_message_bytes;
  LaneMailbox mailbox;

  // Of the event loop. False: the lane takes no more.
  bool Lend(LaneBuffer buffer);
  bool Send(Opcode opcode, Bytes message);
  bool Ping();
  bool Close(std::vector<uint8_t> payload);
  // Ends it at once. From any thread, any number of times.
  void Abort();

  // Of the reader.
  bool aborted() const { return aborted_; }
  enum class Loan { Got, Closing, Over };
  // Waits for a buffer as long as there is a use for it.
  Loan Borrow(LaneBuffer& buffer);
  // Whether there is no point in waiting for more.
  bool ReaderMayStop();
  void Pong(std::vector<uint8_t> payload);
  // The peer's close frame: the answer says the same, unless ours went before.
  void PeerClosed(std::vector<uint8_t> payload);
  void Violated(uint16_t close_code, const char* text);
  void ReadFailed(const char* text, int system_errno);
  void ReaderOver();

  // Of the writer.
  // Waits for something to write; nothing when the lane is over.
  std::optional<LaneOutgoing> Next();
  bool WriterMustStop();
  void CloseWritten();
  void WriteFailed(const char* text, int system_errno);
  void WriterOver();

 private:
  void QueueClose(std::vector<uint8_t> payload);
  void WakeWriter();
  void Conclude();
  void Fail(const char* text, int system_errno);
  void Over(bool& which, const Wake& other);

  std::mutex mutex_;
  std::deque<LaneBuffer> free_;
  std::deque<LaneOutgoing> queue_;
  // The latest of each, so that a peer that asks and does not read is owed one answer.
  std::optional<std::vector<uint8_t>> ping_;
  std::optional<std::vector<uint8_t>> pong_;
  bool writer_sleeps_ = false;
  // Read without the mutex, too: a peer that sends without an end must not delay it.
  std::atomic<bool> aborted_ = false;
  bool close_queued_ = false;
  bool close_written_ = false;
  // Nothing more of the peer is listened to: it has closed or broken the protocol.
  bool peer_done_ = false;
  const char* write_failure_ = nullptr;
  int write_errno_ = 0;
  bool reader_over_ = false;
  bool writer_over_ = false;
};

}  // namespace vmferry
