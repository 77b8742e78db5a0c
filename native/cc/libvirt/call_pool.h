// Threads for calls on one connection: a few, so that calls do not wait for each other, and its own, so that a
// daemon which does not answer holds up nobody else's. A thread ends when there was nothing to do for a while.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace vmferry::libvirt {

// What runs on a thread; it must not throw.
using Task = std::function<void()>;

class CallPool : public std::enable_shared_from_this<CallPool> {
 public:
  // Any thread. Throws std::system_error when the system has no thread for it.
  void Run(Task task);
  // What gives something back must happen: without a thread it happens here.
  void RunAnyhow(const Task& task);
  // The same for what must not wait for calls that do not come back.
  void RunNow(const Task& task);

 private:
  bool IsFull();
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  size_t threads_ = 0;
  size_t idle_ = 0;
};

// Runs what takes long on a thread of its own. Throws std::system_error.
void RunAlone(Task task);

}  // namespace vmferry::libvirt
