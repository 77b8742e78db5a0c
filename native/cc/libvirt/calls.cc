#include "calls.h"

#include <cstdlib>
#include <new>
#include <system_error>
#include <utility>

#include "../arguments.h"
#include "handle.h"

namespace vmferry::libvirt {

namespace {

constexpr const char* kClosed = "the connection is closed";
constexpr const char* kFreed = "the domain was freed, or its connection closed";

void Launch(Napi::Env env, Connection& connection, On on, std::function<void()> task) {
  try {
    if (on == On::Pool) {
      connection.pool().Run(std::move(task));
    } else {
      RunAlone(std::move(task));
    }
  } catch (const std::system_error& error) {
    Throw(env, Code::System, "no thread could be started", error.code().value());
  }
}

Napi::Value Run(const Napi::CallbackInfo& info, Arguments& arguments, On on, std::function<Product()> work) {
  Desk& desk = Desk::Of(info.Env());
  const uint64_t settle = desk.Expect(arguments.Function(), Desk::Kind::Call);
  try {
    Launch(info.Env(), *arguments.connection(), on, Answering(desk.mailbox(), settle, std::move(work)));
  } catch (...) {
    desk.Forget(settle);
    throw;
  }
  return Napi::Number::New(info.Env(), static_cast<double>(settle));
}

}  // namespace

std::function<void()> Answering(std::shared_ptr<Mailbox> mailbox, uint64_t settle, std::function<Product()> work) {
  return [mailbox = std::move(mailbox), settle, work = std::move(work)]() mutable {
    Delivery delivery{settle, Failure{}};
    try {
      delivery.content = work();
    } catch (const Failure& failure) {
      delivery.content = failure;
    } catch (const std::bad_alloc&) {
      delivery.content = Failure::Of(Code::System, "out of memory");
    } catch (...) {
      delivery.content = Failure::Of(Code::System, "unexpected exception in native code");
    }
    // Before the answer: whoever has it may count references.
    work = nullptr;
    mailbox->Post(std::move(delivery));
  };
}

Arguments Arguments::OnConnection(const Napi::CallbackInfo& info) {
  auto connection = HandleOf<Connection>(info[0], "a connection must be a handle");
  if (connection->closed()) Throw(info.Env(), Code::Closed, kClosed);
  return Arguments(info, std::move(connection));
}

Arguments Arguments::WithoutHandle(const Napi::CallbackInfo& info) {
  Arguments arguments(info, nullptr);
  arguments.next_ = 0;
  return arguments;
}

std::string Arguments::Text() {
  const Napi::Value value = Any();
  if (!value.IsString()) Throw(env(), Code::Bounds, "a text must be a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) Throw(env(), Code::Bounds, "a text must not contain a zero byte");
  return text;
}

std::shared_ptr<const std::string> Arguments::MaybeText() {
  if (info_[next_].IsUndefined()) {
    next_++;
    return nullptr;
  }
  return std::make_shared<const std::string>(Text());
}

uint32_t Arguments::U32() { return U32Of(Any(), "a number must be whole, from 0 to 2^32 - 1"); }

int32_t Arguments::I32() {
  const Napi::Value value = Any();
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.5;
  if (!(number >= INT32_MIN && number <= INT32_MAX) || number != static_cast<int32_t>(number)) {
    Throw(env(), Code::Bounds, "a number must be whole, from -2^31 to 2^31 - 1");
  }
  return static_cast<int32_t>(number);
}

uint64_t Arguments::U64() {
  const Napi::Value value = Any();
  bool lossless = false;
  const uint64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless) Throw(env(), Code::Bounds, "a number must be a bigint from 0 to 2^64 - 1");
  return number;
}

bool Arguments::Boolean() {
  const Napi::Value value = Any();
  if (!value.IsBoolean()) Throw(env(), Code::Bounds, "a flag must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

Napi::Function Arguments::Function() { return FunctionOf(Any(), "settle must be a function"); }

DomainRef Arguments::DomainOf(const Napi::Value& value) const {
  const std::shared_ptr<Domain> domain = HandleOf<Domain>(value, "a domain must be a handle");
  if (!domain->ref()) Throw(env(), Code::Closed, kFreed);
  return domain->ref();
}

std::shared_ptr<Connection> Arguments::OneConnection() {
  std::shared_ptr<Connection> connection = HandleOf<Connection>(Any(), "a connection must be a handle");
  if (connection->closed()) Throw(env(), Code::Closed, kClosed);
  return connection;
}

void ConnectionCall(Napi::Object table, const char* name, OnConnection (*parse)(Arguments&), On on) {
  const auto call = [parse, on](const Napi::CallbackInfo& info) {
    Arguments arguments = Arguments::OnConnection(info);
    const OnConnection work = parse(arguments);
    return Run(info, arguments, on, [ref = arguments.connection()->Ref(), work] { return work(ref.get()); });
  };
  table.Set(name, Napi::Function::New(table.Env(), call, name));
}

void DomainCall(Napi::Object table, const char* name, OnDomain (*parse)(Arguments&), On on) {
  const auto call = [parse, on](const Napi::CallbackInfo& info) {
    const auto domain = HandleOf<Domain>(info[0], "a domain must be a handle");
    if (!domain->ref()) Throw(info.Env(), Code::Closed, kFreed);
    Arguments arguments(info, domain->connection().shared_from_this());
    const OnDomain work = parse(arguments);
    return Run(info, arguments, on, [ref = domain->ref(), work] { return work(ref.get()); });
  };
  table.Set(name, Napi::Function::New(table.Env(), call, name));
}

Product Text(std::string text) {
  return [text = std::move(text)](Napi::Env env) { return Napi::String::New(env, text).As<Napi::Value>(); };
}

Product OwnText(char* text) {
  const std::unique_ptr<char, void (*)(void*)> owned(text, std::free);
  return Text(owned.get());
}

Product Number(double number) {
  return [number](Napi::Env env) { return Napi::Number::New(env, number).As<Napi::Value>(); };
}

Product Big(uint64_t number) {
  return [number](Napi::Env env) { return Napi::BigInt::New(env, number).As<Napi::Value>(); };
}

Product Boolean(bool value) {
  return [value](Napi::Env env) { return Napi::Boolean::New(env, value).As<Napi::Value>(); };
}

Product OwnDomain(const std::shared_ptr<Connection>& connection, virDomainPtr domain) {
  // Boxed, so that nothing of it is left with the product.
  const auto box = std::make_shared<DomainRef>(Own(domain));
  return [connection, box](Napi::Env env) { return NewDomain(env, connection, std::move(*box)); };
}

}  // namespace vmferry::libvirt
