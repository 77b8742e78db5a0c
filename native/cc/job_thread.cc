#include "job_thread.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include "arguments.h"
#include "settle.h"

namespace vmferry {

namespace {

// What the event loop's side of the signal holds: whoever goes last, it or the owner, takes the thread with it.
using Held = std::shared_ptr<JobThread>;

void DropHeld(napi_env, void*, void* held) { const std::unique_ptr<Held> dropped(static_cast<Held*>(held)); }

}  // namespace

JobThread::JobThread(Started, Napi::Env env, std::function<void()> interrupt)
    : env_(env), interrupt_(std::move(interrupt)) {}

JobThread::~JobThread() { Join(); }

std::shared_ptr<JobThread> JobThread::Start(Napi::Env env, std::function<void()> interrupt) {
  auto thread = std::make_shared<JobThread>(Started(), env, std::move(interrupt));
  auto held = std::make_unique<Held>(thread);
  const Napi::String name = Napi::String::New(env, "vmferry waits");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, held.get(), DropHeld, held.get(), OnSignal,
                                      &thread->signal_) != napi_ok) {
    Throw(env, Code::System, "no way to the event loop", ENOMEM);
  }
  [[maybe_unused]] Held* const given = held.release();
  // Only jobs keep the event loop alive.
  napi_unref_threadsafe_function(env, thread->signal_);
  try {
    thread->thread_ = std::thread([self = thread.get()] { self->Work(); });
  } catch (const std::system_error& error) {
    napi_release_threadsafe_function(std::exchange(thread->signal_, nullptr), napi_tsfn_abort);
    Throw(env, Code::System, "no thread could be started", error.code().value());
  }
  // Hooks run in reverse order: the thread is joined before the environment takes the signal away.
  napi_add_env_cleanup_hook(env, OnTeardown, thread.get());
  return thread;
}

void JobThread::Run(std::initializer_list<Napi::Value> keep, const Napi::Function& settle,
                    std::function<Outcome()> task) {
  if (ending_) Throw(env_, Code::Closed, "closed");
  auto job = std::make_unique<Job>();
  for (const Napi::Value& value : keep) job->keep.push_back(Napi::Persistent(value.As<Napi::Object>()));
  job->settle = Napi::Persistent(settle);
  job->task = std::move(task);
  if (jobs_.empty()) napi_ref_threadsafe_function(env_, signal_);
  jobs_.push_back(std::move(job));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    todo_.push_back(jobs_.back().get());
  }
  changed_.notify_one();
}

void JobThread::End() {
  ending_ = true;
  if (jobs_.empty()) Release();
}

void JobThread::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return over_ || !todo_.empty(); });
    if (over_) return;
    Job& job = *todo_.front();
    todo_.pop_front();
    lock.unlock();
    job.outcome = Attempt(job.task);
    lock.lock();
    // One signal for all that settle together. It cannot fail while this thread lives: the queue has no limit, and
    // teardown joins first.
    if (done_++ == 0) napi_call_threadsafe_function(signal_, nullptr, napi_tsfn_nonblocking);
  }
}

void JobThread::OnSignal(napi_env env, napi_value, void* held, void*) {
  // Without an environment this is the end of it, and nobody is there to be told.
  if (env == nullptr) return;
  const Held self = *static_cast<Held*>(held);
  self->Deliver(env);
}

void JobThread::Deliver(napi_env env) {
  size_t count = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    count = std::exchange(done_, 0);
  }
  for (; count > 0 && !jobs_.empty(); count--) {
    const Napi::HandleScope scope(env_);
    const std::unique_ptr<Job> job = std::move(jobs_.front());
    jobs_.pop_front();
    // Before the call: what settles may start the next one, or end this.
    if (jobs_.empty() && signal_ != nullptr) napi_unref_threadsafe_function(env, signal_);
    Settle(env, job->settle.Value(), job->outcome);
    bool threw = false;
    napi_value thrown = nullptr;
    if (napi_is_exception_pending(env, &threw) == napi_ok && threw &&
        napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
      napi_fatal_exception(env, thrown);
    }
  }
  if (ending_ && jobs_.empty()) Release();
}

void JobThread::OnTeardown(void* self) {
  auto& thread = *static_cast<JobThread*>(self);
  thread.interrupt_();
  thread.Join();
  thread.signal_ = nullptr;
  thread.jobs_.clear();
}

void JobThread::Release() {
  if (signal_ == nullptr) return;
  Join();
  napi_remove_env_cleanup_hook(env_, OnTeardown, this);
  napi_release_threadsafe_function(std::exchange(signal_, nullptr), napi_tsfn_release);
}

void JobThread::Join() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace vmferry
