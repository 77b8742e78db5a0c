// A connection and what hangs on it.
//
//     open ── Close(), or collected ──▶ closed: its domains are freed, its events end, the pool closes it
//
// libvirt counts references: a connection is gone when its domains, subscriptions and running calls are.
#pragma once

#include <napi.h>

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

#include "call_pool.h"
#include "library.h"
#include "mailbox.h"

namespace vmferry::libvirt {

class Domain;

// Counted references, which may be given back on any thread but the event loop's: the last one talks to the daemon.
using ConnectionRef = std::shared_ptr<virConnect>;
using DomainRef = std::shared_ptr<virDomain>;
ConnectionRef RefOf(virConnectPtr connection);
// Takes the reference that libvirt handed out.
DomainRef Own(virDomainPtr domain);

// On the pool; whoever calls this has none any more.
template <typename Reference>
void GiveBack(CallPool& pool, Reference reference) {
  const auto box = std::make_shared<Reference>(std::move(reference));
  pool.RunAnyhow([box] { *box = nullptr; });
}

// Where libvirt's callbacks post to; libvirt holds it as their opaque pointer.
struct Subscriber {
  std::shared_ptr<Mailbox> mailbox;
  uint64_t address;
  static void Free(void* subscriber) { delete static_cast<Subscriber*>(subscriber); }
};

// A registered event callback; going, it is deregistered. As the references, not on the event loop.
class Registration {
 public:
  using Deregister = int (*)(virConnectPtr, int);
  Registration(ConnectionRef connection, Deregister deregister, int id, uint64_t address)
      : address(address), connection_(std::move(connection)), deregister_(deregister), id_(id) {}
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  const uint64_t address;

 private:
  ConnectionRef connection_;
  Deregister deregister_;
  int id_;
};

// What virConnectOpen brought, and the callback that says when it is lost. Going, it closes it.
class OpenConnection {
 public:
  OpenConnection(virConnectPtr connection, std::unique_ptr<Subscriber> lost);
  ~OpenConnection();
  OpenConnection(const OpenConnection&) = delete;
  OpenConnection& operator=(const OpenConnection&) = delete;
  virConnectPtr pointer() const { return connection_; }
  // Returns how many references are left: 0 when the connection is gone.
  int Close();

 private:
  virConnectPtr connection_;
  bool told_when_lost_ = false;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static const napi_type_tag kTag;
  Connection(Napi::Env env, std::shared_ptr<OpenConnection> open, uint64_t lost_address);
  // Drops it where no handle could be made; nobody else has it then.
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool closed() const { return open_ == nullptr; }
  // For a call; not when closed.
  ConnectionRef Ref() const { return RefOf(open_->pointer()); }
  // Works when closed, too.
  CallPool& pool() const { return *pool_; }
  Napi::Env env() const { return env_; }

  // Closes it on the pool, then posts the number of references that are left. Not when closed.
  void Close(uint64_t settle);
  // Of a handle that was collected.
  void Drop();

  void Add(Domain* domain) { domains_.insert(domain); }
  void Remove(Domain* domain) { domains_.erase(domain); }
  // Returns the number by which Unsubscribe() knows it.
  uint32_t Subscribe(std::shared_ptr<Registration> registration);
  // Ends it on the pool, then posts. False if there is none.
  bool Unsubscribe(uint32_t number, uint64_t settle);

 private:
  struct Belongings;
  Belongings Take();

  Napi::Env env_;
  std::shared_ptr<OpenConnection> open_;
  std::shared_ptr<CallPool> pool_ = std::make_shared<CallPool>();
  uint64_t lost_address_;
  std::unordered_set<Domain*> domains_;
  std::map<uint32_t, std::shared_ptr<Registration>> subscriptions_;
  uint32_t last_subscription_ = 0;
};

// open, abandon, close, free
void ExportConnection(Napi::Env env, Napi::Object table);

}  // namespace vmferry::libvirt
