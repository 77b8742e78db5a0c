#include "call_pool.h"

#include <signal.h>

#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

namespace vmferry::libvirt {

namespace {

constexpr size_t kMostThreads = 4;
constexpr std::chrono::seconds kIdle{2};

}  // namespace

void RunAlone(Task task) {
  // Signals are Node's: a thread is born with its maker's mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    // Detached: a call may wait for a daemon for ever, and an environment that goes down must not wait with it.
    std::thread(std::move(task)).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void CallPool::Run(Task task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tasks_.push_back(std::move(task));
  if (idle_ < tasks_.size() && threads_ < kMostThreads) {
    try {
      RunAlone([self = shared_from_this()] { self->Work(); });
      threads_++;
    } catch (const std::system_error&) {
      // One thread is enough to get it done.
      if (threads_ == 0) {
        tasks_.pop_back();
        throw;
      }
    }
  }
  changed_.notify_one();
}

void CallPool::RunAnyhow(const Task& task) {
  try {
    Run(task);
  } catch (const std::system_error&) {
    task();
  }
}

void CallPool::RunNow(const Task& task) {
  if (IsFull()) {
    try {
      RunAlone(task);
      return;
    } catch (const std::system_error&) {
      // Then it has to wait for one of them.
    }
  }
  RunAnyhow(task);
}

bool CallPool::IsFull() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return threads_ == kMostThreads && idle_ <= tasks_.size();
}

void CallPool::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    idle_++;
    const bool more = changed_.wait_for(lock, kIdle, [&] { return !tasks_.empty(); });
    idle_--;
    if (!more) break;
    {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      // What it holds is given back here, not under the lock.
    }
    lock.lock();
  }
  threads_--;
}

}  // namespace vmferry::libvirt
