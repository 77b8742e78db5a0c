#include "mailbox.h"

#include <array>
#include <cerrno>
#include <utility>

#include "../arguments.h"
#include "../instance.h"
#include "call_pool.h"

namespace vmferry::libvirt {

namespace {

// Lets others have the event loop in between.
constexpr size_t kDeliveriesAtOnce = 256;

bool IsQuiet(Desk::Kind kind) { return kind == Desk::Kind::QuietCall || kind == Desk::Kind::QuietEvents; }

void Fatal(napi_env env) {
  bool threw = false;
  napi_value thrown = nullptr;
  if (napi_is_exception_pending(env, &threw) == napi_ok && threw &&
      napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
    napi_fatal_exception(env, thrown);
  }
}

}  // namespace

Product Nothing() {
  return [](Napi::Env env) { return env.Undefined(); };
}

void Mailbox::Post(Delivery delivery) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (signal_ == nullptr) return;
  deliveries_.push_back(std::move(delivery));
  // Cannot fail while there is a signal: the queue has no limit, and teardown takes the signal away first.
  if (deliveries_.size() == 1) napi_call_threadsafe_function(signal_, nullptr, napi_tsfn_nonblocking);
}

Desk& Desk::Of(Napi::Env env) {
  std::shared_ptr<void>& slot = Instance::Of(env).libvirt;
  if (!slot) {
    auto desk = std::make_shared<Desk>(env);
    desk->Open();
    slot = desk;
  }
  return *static_cast<Desk*>(slot.get());
}

Desk::~Desk() {
  if (open_) napi_remove_env_cleanup_hook(env_, OnTeardown, this);
}

void Desk::Open() {
  const Napi::String name = Napi::String::New(env_, "vmferry libvirt");
  napi_threadsafe_function signal = nullptr;
  if (napi_create_threadsafe_function(env_, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, OnSignal,
                                      &signal) != napi_ok) {
    Throw(env_, Code::System, "no way to the event loop", ENOMEM);
  }
  napi_unref_threadsafe_function(env_, signal);
  mailbox_->signal_ = signal;
  napi_add_env_cleanup_hook(env_, OnTeardown, this);
  open_ = true;
}

uint64_t Desk::Expect(const Napi::Function& function, Kind kind) {
  if (!open_) Throw(env_, Code::Closed, "the environment is going down");
  const uint64_t address = ++last_address_;
  waiting_.emplace(address, Waiting{Napi::Persistent(function), kind});
  if (!IsQuiet(kind)) Hold();
  return address;
}

void Desk::Forget(uint64_t address) {
  const auto found = waiting_.find(address);
  if (found == waiting_.end()) return;
  if (!IsQuiet(found->second.kind)) Release();
  waiting_.erase(found);
}

void Desk::ForgetWith(uint64_t address, uint64_t with, When when) {
  waiting_.at(address).forgotten_with.emplace_back(with, when);
}

void Desk::Fail(uint64_t address) {
  for (const auto& [with, when] : waiting_.at(address).forgotten_with) Forget(with);
  Forget(address);
}

void Desk::OnAbandon(uint64_t address, std::function<void()> what) {
  waiting_.at(address).on_abandon = std::move(what);
}

void Desk::Abandon(uint64_t address) {
  const auto found = waiting_.find(address);
  if (found == waiting_.end()) return;
  Waiting& waiting = found->second;
  if (waiting.on_abandon) std::exchange(waiting.on_abandon, nullptr)();
  if (IsQuiet(waiting.kind)) return;
  waiting.kind = waiting.kind == Kind::Call ? Kind::QuietCall : Kind::QuietEvents;
  Release();
}

void Desk::Hold() {
  if (holds_++ == 0) napi_ref_threadsafe_function(env_, mailbox_->signal_);
}

void Desk::Release() {
  if (--holds_ == 0 && open_) napi_unref_threadsafe_function(env_, mailbox_->signal_);
}

void Desk::OnSignal(napi_env env, napi_value, void* self, void*) {
  // Without an environment this is the end of it.
  if (env != nullptr) static_cast<Desk*>(self)->Drain();
}

void Desk::Drain() {
  for (size_t taken = 0; taken < kDeliveriesAtOnce && open_; taken++) {
    Delivery delivery;
    {
      const std::lock_guard<std::mutex> lock(mailbox_->mutex_);
      if (mailbox_->deliveries_.empty()) return;
      delivery = std::move(mailbox_->deliveries_.front());
      mailbox_->deliveries_.pop_front();
      // Whoever posts to an empty mailbox signals; the rest of this one is ours to signal.
      const bool last_turn = taken + 1 == kDeliveriesAtOnce && !mailbox_->deliveries_.empty();
      if (last_turn) napi_call_threadsafe_function(mailbox_->signal_, nullptr, napi_tsfn_nonblocking);
    }
    const Napi::HandleScope scope(env_);
    try {
      Deliver(delivery);
    } catch (const Napi::Error&) {
      // Only an environment that is going down, or has no memory left, refuses to make values and to call.
      return;
    }
  }
}

void Desk::Deliver(const Delivery& delivery) {
  const auto found = waiting_.find(delivery.address);
  if (found == waiting_.end()) return;
  const napi_value function = found->second.function.Value();
  const bool is_call = found->second.kind == Kind::Call || found->second.kind == Kind::QuietCall;
  const auto forgotten_with = std::move(found->second.forgotten_with);
  // Before the call: what it wakes may start the next one, or be the last.
  if (is_call) Forget(delivery.address);

  std::array<napi_value, 2> arguments{env_.Undefined(), env_.Undefined()};
  const auto* product = std::get_if<Product>(&delivery.content);
  if (!is_call) {
    if (product == nullptr) return;
    arguments[0] = (*product)(env_);
  } else {
    Failure failure;
    bool failed = product == nullptr;
    if (failed) failure = std::get<Failure>(delivery.content);
    try {
      if (!failed) arguments[1] = (*product)(env_);
    } catch (const Failure& thrown) {
      failed = true;
      failure = thrown;
    }
    for (const auto& [address, when] : forgotten_with) {
      if (failed || when == When::Settled) Forget(address);
    }
    if (failed) arguments[0] = failure.ToValue(env_);
  }
  const size_t count = is_call ? 2 : 1;
  // Plain N-API: what the function throws is an uncaught exception, and the next delivery comes all the same.
  napi_call_function(env_, env_.Undefined(), function, count, arguments.data(), nullptr);
  Fatal(env_);
}

void Desk::OnTeardown(void* self) {
  auto& desk = *static_cast<Desk*>(self);
  desk.open_ = false;
  std::deque<Delivery> dropped;
  {
    const std::lock_guard<std::mutex> lock(desk.mailbox_->mutex_);
    desk.mailbox_->signal_ = nullptr;
    dropped.swap(desk.mailbox_->deliveries_);
  }
  for (const auto& [address, waiting] : desk.waiting_) {
    if (waiting.on_abandon) waiting.on_abandon();
  }
  desk.waiting_.clear();
  // Giving handles back may talk to a daemon.
  if (!dropped.empty()) {
    try {
      RunAlone([dropped = std::make_shared<std::deque<Delivery>>(std::move(dropped))] { dropped->clear(); });
    } catch (const std::system_error&) {
      // No thread to be had: then it happened here.
    }
  }
}

}  // namespace vmferry::libvirt
