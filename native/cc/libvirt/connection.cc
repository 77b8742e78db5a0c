#include "connection.h"

#include <system_error>
#include <utility>

#include "../arguments.h"
#include "auth.h"
#include "calls.h"
#include "domain.h"
#include "handle.h"

namespace vmferry::libvirt {

const napi_type_tag Connection::kTag{0x70ce2fb1d4a946e2, 0xb1c96a0e5d7f2384};

namespace {

void OnLost(virConnectPtr, int reason, void* subscriber) {
  const auto& to = *static_cast<Subscriber*>(subscriber);
  to.mailbox->Post({to.address, Number(reason)});
}

// The driver has nothing of the kind.
bool IsUnsupported(const Failure& failure) {
  return failure.code == Code::Ok && failure.number == VIR_ERR_NO_SUPPORT;
}

struct KeepAlive {
  int interval_seconds;
  unsigned int count;
};

// 1 if the other end answers keepalive messages.
bool StartKeepAlive(virConnectPtr connection, const KeepAlive& keep_alive) {
  try {
    return VIRT(virConnectSetKeepAlive, connection, keep_alive.interval_seconds, keep_alive.count) == 0;
  } catch (const Failure& failure) {
    if (!IsUnsupported(failure)) throw;
    return false;
  }
}

// open(uri | undefined, flags, types, onCredentials | undefined, intervalSeconds, count, onLost, settle); the value is
// {connection, keepsAlive}. Returns the call's number, for abandon().
Napi::Value Open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments = Arguments::WithoutHandle(info);
  const auto uri = arguments.MaybeText();
  const uint32_t flags = arguments.U32();
  const Words type_words = WordsOf(arguments.Any(), "types must be a Uint32Array");
  std::vector<int> types(type_words.data, type_words.data + type_words.size);
  const Napi::Value on_credentials = arguments.Any();
  const bool asks = !on_credentials.IsUndefined();
  if (asks) FunctionOf(on_credentials, "onCredentials must be a function");
  const KeepAlive keep_alive{arguments.I32(), arguments.U32()};
  const Napi::Function on_lost = arguments.Function();
  const Napi::Function settle_function = arguments.Function();

  Desk& desk = Desk::Of(env);
  const uint64_t settle = desk.Expect(settle_function, Desk::Kind::Call);
  const uint64_t lost = desk.Expect(on_lost, Desk::Kind::QuietEvents);
  desk.ForgetWith(settle, lost, Desk::When::Failed);
  std::shared_ptr<Authentication> authentication;
  if (asks) {
    const uint64_t questions = desk.Expect(on_credentials.As<Napi::Function>(), Desk::Kind::QuietEvents);
    desk.ForgetWith(settle, questions, Desk::When::Settled);
    authentication = std::make_shared<Authentication>(std::move(types), desk.mailbox(), questions);
    desk.OnAbandon(settle, [authentication] { authentication->Cancel(); });
  }

  const auto work = [uri, flags, keep_alive, authentication, mailbox = desk.mailbox(), lost]() -> Product {
    const virConnectPtr opened = VIRT(virConnectOpenAuth, OrNull(uri),
                                      authentication ? authentication->ForLibvirt() : nullptr, flags);
    auto open = std::make_shared<OpenConnection>(opened, std::make_unique<Subscriber>(Subscriber{mailbox, lost}));
    const bool keeps_alive = keep_alive.interval_seconds > 0 && StartKeepAlive(opened, keep_alive);
    return [open, keeps_alive, lost](Napi::Env env) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("connection", NewHandle(env, std::make_shared<Connection>(env, open, lost)));
      object.Set("keepsAlive", keeps_alive);
      return object.As<Napi::Value>();
    };
  };
  try {
    RunAlone(Answering(desk.mailbox(), settle, work));
  } catch (const std::system_error& error) {
    desk.Fail(settle);
    Throw(env, Code::System, "no thread could be started", error.code().value());
  }
  return Napi::Number::New(env, static_cast<double>(settle));
}

// abandon(number): the call goes on, answers no questions, and does not keep the event loop alive any more
void Abandon(const Napi::CallbackInfo& info) {
  Desk::Of(info.Env()).Abandon(IntegerOf(info[0], "number must be a call's"));
}

// close(connection, settle): the value is the number of references that are left. Returns the call's number.
Napi::Value Close(const Napi::CallbackInfo& info) {
  const auto connection = HandleOf<Connection>(info[0], "a connection must be a handle");
  const Napi::Function settle = FunctionOf(info[1], "settle must be a function");
  if (connection->closed()) Throw(info.Env(), Code::Closed, "the connection is closed");
  const uint64_t number = Desk::Of(info.Env()).Expect(settle, Desk::Kind::Call);
  connection->Close(number);
  return Napi::Number::New(info.Env(), static_cast<double>(number));
}

// free(domain), any number of times
void Free(const Napi::CallbackInfo& info) { HandleOf<Domain>(info[0], "a domain must be a handle")->Free(); }

}  // namespace

ConnectionRef RefOf(virConnectPtr connection) {
  Lib().virConnectRef(connection);
  return ConnectionRef(connection, [](virConnectPtr held) { Lib().virConnectClose(held); });
}

DomainRef Own(virDomainPtr domain) {
  return DomainRef(domain, [](virDomainPtr held) { Lib().virDomainFree(held); });
}

Registration::~Registration() { deregister_(connection_.get(), id_); }

OpenConnection::OpenConnection(virConnectPtr connection, std::unique_ptr<Subscriber> lost) : connection_(connection) {
  try {
    VIRT(virConnectRegisterCloseCallback, connection, OnLost, lost.get(), Subscriber::Free);
    [[maybe_unused]] Subscriber* const given = lost.release();
    told_when_lost_ = true;
  } catch (const Failure& failure) {
    // A driver inside this process cannot be lost.
    if (IsUnsupported(failure)) return;
    Lib().virConnectClose(connection);
    throw;
  }
}

OpenConnection::~OpenConnection() {
  if (connection_ != nullptr) Close();
}

int OpenConnection::Close() {
  const virConnectPtr connection = std::exchange(connection_, nullptr);
  // Fails for a connection that was lost: then the callback is gone already.
  if (told_when_lost_) Lib().virConnectUnregisterCloseCallback(connection, OnLost);
  return Lib().virConnectClose(connection);
}

// All that keeps a connection alive, in the order in which it is given back.
struct Connection::Belongings {
  std::vector<std::shared_ptr<Registration>> subscriptions;
  std::vector<DomainRef> domains;
  std::shared_ptr<OpenConnection> open;

  int GiveBack() {
    subscriptions.clear();
    domains.clear();
    return open->Close();
  }
};

Connection::Connection(Napi::Env env, std::shared_ptr<OpenConnection> open, uint64_t lost_address)
    : env_(env), open_(std::move(open)), lost_address_(lost_address) {}

Connection::~Connection() { Drop(); }

Connection::Belongings Connection::Take() {
  Desk& desk = Desk::Of(env_);
  Belongings all;
  for (auto& [number, registration] : subscriptions_) {
    desk.Forget(registration->address);
    all.subscriptions.push_back(std::move(registration));
  }
  subscriptions_.clear();
  for (Domain* const domain : domains_) all.domains.push_back(domain->Take());
  domains_.clear();
  desk.Forget(lost_address_);
  all.open = std::exchange(open_, nullptr);
  return all;
}

void Connection::Close(uint64_t settle) {
  auto all = std::make_shared<Belongings>(Take());
  pool_->RunNow(Answering(Desk::Of(env_).mailbox(), settle, [all] { return Number(all->GiveBack()); }));
}

void Connection::Drop() {
  if (closed()) return;
  auto all = std::make_shared<Belongings>(Take());
  pool_->RunNow([all] { all->GiveBack(); });
}

uint32_t Connection::Subscribe(std::shared_ptr<Registration> registration) {
  subscriptions_.emplace(++last_subscription_, std::move(registration));
  return last_subscription_;
}

bool Connection::Unsubscribe(uint32_t number, uint64_t settle) {
  const auto found = subscriptions_.find(number);
  if (found == subscriptions_.end()) return false;
  std::shared_ptr<Registration> registration = std::move(found->second);
  subscriptions_.erase(found);
  Desk& desk = Desk::Of(env_);
  desk.Forget(registration->address);
  const auto box = std::make_shared<std::shared_ptr<Registration>>(std::move(registration));
  pool_->RunAnyhow(Answering(desk.mailbox(), settle, [box] {
    *box = nullptr;
    return Nothing();
  }));
  return true;
}

void ExportConnection(Napi::Env env, Napi::Object table) {
  table.Set("open", Napi::Function::New<Open>(env, "open"));
  table.Set("abandon", Napi::Function::New<Abandon>(env, "abandon"));
  table.Set("close", Napi::Function::New<Close>(env, "close"));
  table.Set("free", Napi::Function::New<Free>(env, "free"));
}

}  // namespace vmferry::libvirt
