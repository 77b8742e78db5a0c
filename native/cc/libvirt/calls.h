// How a function of the table is made: arguments are taken apart on the event loop, libvirt is called on a thread,
// what it brought becomes a value on the event loop, and the last argument, settle(failure | undefined, value), gets
// it.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <string>

#include "connection.h"
#include "domain.h"
#include "failure.h"
#include "mailbox.h"

namespace vmferry::libvirt {

// The arguments after the handle, in their order. Whatever is wrong is thrown.
class Arguments {
 public:
  Arguments(const Napi::CallbackInfo& info, std::shared_ptr<Connection> connection)
      : info_(info), connection_(std::move(connection)) {}
  // Of a function whose first argument is a connection; not when that is closed.
  static Arguments OnConnection(const Napi::CallbackInfo& info);
  // Of a function without a handle.
  static Arguments WithoutHandle(const Napi::CallbackInfo& info);
  Napi::Env env() const { return info_.Env(); }
  // On which the call is made.
  const std::shared_ptr<Connection>& connection() const { return connection_; }

  Napi::Value Any() { return info_[next_++]; }
  std::string Text();
  // A string or undefined.
  std::shared_ptr<const std::string> MaybeText();
  uint32_t U32();
  int32_t I32();
  uint64_t U64();
  bool Boolean();
  Napi::Function Function();
  // Of any connection; not freed, not closed.
  DomainRef DomainOf(const Napi::Value& value) const;
  DomainRef OneDomain() { return DomainOf(Any()); }
  std::shared_ptr<Connection> OneConnection();

 private:
  const Napi::CallbackInfo& info_;
  std::shared_ptr<Connection> connection_;
  size_t next_ = 1;
};

inline const char* OrNull(const std::shared_ptr<const std::string>& text) { return text ? text->c_str() : nullptr; }

enum class On {
  // The connection's threads: for calls that come back soon.
  Pool,
  // A thread of its own.
  OwnThread,
};

using OnConnection = std::function<Product(virConnectPtr)>;
using OnDomain = std::function<Product(virDomainPtr)>;

// name(connection, ...arguments, settle); both return the call's number, for abandon()
void ConnectionCall(Napi::Object table, const char* name, OnConnection (*parse)(Arguments&), On on = On::Pool);
// name(domain, ...arguments, settle)
void DomainCall(Napi::Object table, const char* name, OnDomain (*parse)(Arguments&), On on = On::Pool);

// Runs `work` and posts what came of it; what it holds is given back on the thread that runs it.
std::function<void()> Answering(std::shared_ptr<Mailbox> mailbox, uint64_t settle, std::function<Product()> work);

// Products of what calls return most.
Product Text(std::string text);
// Frees what libvirt allocated.
Product OwnText(char* text);
Product Number(double number);
Product Big(uint64_t number);
Product Boolean(bool value);
Product OwnDomain(const std::shared_ptr<Connection>& connection, virDomainPtr domain);

}  // namespace vmferry::libvirt
