#include "job.h"

#include <cerrno>
#include <utility>

#include "arguments.h"
#include "settle.h"

namespace vmferry {

class Job {
 public:
  Job(Napi::Env env, JobPool& pool) : env_(env), pool_(pool) {
    const Napi::String name = Napi::String::New(env, "vmferry");
    if (napi_create_async_work(env, nullptr, name, Execute, Complete, this, &work_) != napi_ok) {
      Throw(env, Code::System, "no work item could be made", ENOMEM);
    }
  }
  ~Job() {
    if (work_ != nullptr) napi_delete_async_work(env_, work_);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void Start(const Napi::Value& first, const Napi::Value& second, const Napi::Function& settle,
             std::function<Outcome()> task) {
    first_ = Napi::Persistent(first.As<Napi::Object>());
    second_ = Napi::Persistent(second.As<Napi::Object>());
    settle_ = Napi::Persistent(settle);
    task_ = std::move(task);
    if (napi_queue_async_work(env_, work_) != napi_ok) {
      Release();
      Throw(env_, Code::System, "the work could not be queued", EAGAIN);
    }
  }

 private:
  static void Execute(napi_env, void* data) {
    auto& job = *static_cast<Job*>(data);
    job.outcome_ = Attempt(job.task_);
  }

  static void Complete(napi_env env, napi_status status, void* data) {
    auto& job = *static_cast<Job*>(data);
    const Outcome outcome =
        status == napi_ok ? job.outcome_ : Outcome::Failed(Code::Closed, "the environment is going down");
    const napi_value settle = job.settle_.Value();
    // Idle before the call: what settles may start the next task. What settle() throws stays pending, and Node
    // reports it as an uncaught exception.
    job.Release();
    job.pool_.idle_.push_back(&job);
    Settle(env, settle, outcome);
  }

  void Release() {
    first_.Reset();
    second_.Reset();
    settle_.Reset();
    task_ = nullptr;
  }

  Napi::Env env_;
  JobPool& pool_;
  napi_async_work work_ = nullptr;
  Napi::ObjectReference first_;
  Napi::ObjectReference second_;
  Napi::FunctionReference settle_;
  std::function<Outcome()> task_;
  Outcome outcome_;
};

JobPool::JobPool(Napi::Env env) : env_(env) {}
JobPool::~JobPool() = default;

void JobPool::Run(const Napi::Value& first, const Napi::Value& second, const Napi::Function& settle,
                  std::function<Outcome()> task) {
  if (idle_.empty()) {
    jobs_.push_back(std::make_unique<Job>(env_, *this));
    // Room for every job: giving one back must not fail.
    idle_.reserve(jobs_.size());
    idle_.push_back(jobs_.back().get());
  }
  Job* const job = idle_.back();
  job->Start(first, second, settle, std::move(task));
  idle_.pop_back();
}

}  // namespace vmferry
