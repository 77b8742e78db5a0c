// Work that waits for a peer, on a thread of its own: on libuv's pool a few such waits would keep everything else
// (files, hashing, other migrations) from its four threads.
//
//     Run ──▶ queued ──▶ running (own thread) ──▶ settled (event loop), each in its turn
//
// The thread starts with the first job. End() asks it to go: jobs that are left still run, at once because what
// they wait for has been closed, and settle.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "outcome.h"

namespace vmferry {

class JobThread {
 public:
  // `interrupt` makes every job end at once, the running one and those to come; for an environment that goes down.
  // Throws when the system has no room for it.
  static std::shared_ptr<JobThread> Start(Napi::Env env, std::function<void()> interrupt);
  struct Started {
   private:
    friend class JobThread;
    Started() = default;
  };
  // For Start() only.
  JobThread(Started, Napi::Env env, std::function<void()> interrupt);
  ~JobThread();
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  // Runs `task` after those before it; `keep` (the owner, arrays) stays referenced until it is done. Then calls
  // settle as Settle() does.
  void Run(std::initializer_list<Napi::Value> keep, const Napi::Function& settle, std::function<Outcome()> task);
  // Whether there is no job.
  bool Idle() const { return jobs_.empty(); }
  // On the event loop, once what the jobs wait for has been closed. Any number of times.
  void End();

 private:
  struct Job {
    std::vector<Napi::ObjectReference> keep;
    Napi::FunctionReference settle;
    std::function<Outcome()> task;
    Outcome outcome;
  };

  void Work();
  void Join();
  static void OnSignal(napi_env env, napi_value callback, void* self, void* data);
  static void OnTeardown(void* self);
  void Deliver(napi_env env);
  void Release();

  Napi::Env env_;
  std::function<void()> interrupt_;
  napi_threadsafe_function signal_ = nullptr;
  // Of the event loop: in their order, the thread's included.
  std::deque<std::unique_ptr<Job>> jobs_;
  bool ending_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job*> todo_;
  size_t done_ = 0;
  bool over_ = false;
  // Last, so that all it works on is there.
  std::thread thread_;
};

}  // namespace vmferry
