// The way from libvirt's threads to the event loop of one environment. Threads post; the event loop hands what came
// to the JavaScript function that waits for it. References to functions stay on the event loop's side.
#pragma once

#include <napi.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "failure.h"

namespace vmferry::libvirt {

// Makes a JavaScript value of what a thread brought; on the event loop. What it holds may be dropped on any thread.
using Product = std::function<Napi::Value(Napi::Env)>;

Product Nothing();

struct Delivery {
  uint64_t address = 0;
  std::variant<Failure, Product> content;
};

class Mailbox {
 public:
  // Any thread. Once the environment is gone nothing comes of it.
  void Post(Delivery delivery);

 private:
  friend class Desk;
  std::mutex mutex_;
  std::deque<Delivery> deliveries_;
  // Null before the first address and after the end.
  napi_threadsafe_function signal_ = nullptr;
};

// The event loop's side, one in an environment.
class Desk {
 public:
  // Makes it when it is first asked for.
  static Desk& Of(Napi::Env env);
  explicit Desk(Napi::Env env) : env_(env), mailbox_(std::make_shared<Mailbox>()) {}
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;
  ~Desk();

  enum class Kind {
    // A call: the function gets (failure | undefined, value), once. Keeps the event loop alive until then.
    Call,
    // A subscription: the function gets (value), until Forget(). Keeps the event loop alive until then.
    Events,
    // As a call or a subscription, and does not keep the event loop alive.
    QuietCall,
    QuietEvents,
  };
  uint64_t Expect(const Napi::Function& function, Kind kind);
  // The address is dead from now on. Any number of times.
  void Forget(uint64_t address);
  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  // `with` is forgotten when the call at `address` has settled, or only if it failed.
  enum class When { Settled, Failed };
  void ForgetWith(uint64_t address, uint64_t with, When when);
  // Forgets a call that was not even made, and what is forgotten with it.
  void Fail(uint64_t address);
  // Called once when nobody waits for `address` any more: on Abandon(), or when the environment goes down.
  void OnAbandon(uint64_t address, std::function<void()> what);
  // Quietens it, and calls what was set for it.
  void Abandon(uint64_t address);

 private:
  struct Waiting {
    Napi::FunctionReference function;
    Kind kind;
    std::vector<std::pair<uint64_t, When>> forgotten_with{};
    std::function<void()> on_abandon{};
  };

  static void OnSignal(napi_env env, napi_value callback, void* self, void* data);
  static void OnTeardown(void* self);
  void Open();
  void Drain();
  void Deliver(const Delivery& delivery);
  void Hold();
  void Release();

  Napi::Env env_;
  std::shared_ptr<Mailbox> mailbox_;
  std::unordered_map<uint64_t, Waiting> waiting_;
  uint64_t last_address_ = 0;
  size_t holds_ = 0;
  bool open_ = false;
};

}  // namespace vmferry::libvirt
