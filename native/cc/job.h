// Work on libuv's thread pool.
//
//     idle ── Run ──▶ queued ──▶ running (pool thread) ──▶ settled (event loop) ──▶ idle
//
// A job and its napi_async_work are kept and used again: making one costs more than running a small task.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <vector>

#include "outcome.h"

namespace vmferry {

class Job;

// One per environment, used on its thread only. Node settles every queued job before the environment's
// instance data goes, so no job outlives the pool.
class JobPool {
 public:
  explicit JobPool(Napi::Env env);
  ~JobPool();
  JobPool(const JobPool&) = delete;
  JobPool& operator=(const JobPool&) = delete;

  // Runs `task` on a pool thread; `first` and `second` (typed arrays) stay referenced until it is done. Then
  // calls settle(code, value0, value1, value2, value3, message, errno) on the event loop.
  void Run(const Napi::Value& first, const Napi::Value& second, const Napi::Function& settle,
           std::function<Outcome()> task);

 private:
  friend class Job;
  Napi::Env env_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<Job*> idle_;
};

}  // namespace vmferry
