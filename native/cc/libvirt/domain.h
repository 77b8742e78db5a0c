// A domain: a reference of libvirt's to a machine on one connection, by UUID.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "connection.h"

namespace vmferry::libvirt {

class Domain {
 public:
  static const napi_type_tag kTag;
  // Made and dropped on the event loop.
  Domain(std::shared_ptr<Connection> connection, DomainRef domain);
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  // Null once it is freed, or its connection closed.
  const DomainRef& ref() const { return domain_; }
  Connection& connection() const { return *connection_; }
  // Gives it back on the connection's pool. Any number of times.
  void Free();
  void Drop() { Free(); }
  // For a connection that closes: it gives them all back.
  DomainRef Take();

 private:
  std::shared_ptr<Connection> connection_;
  DomainRef domain_;
};

// {handle, name, uuid} on the event loop, of what a call on `connection` brought.
Napi::Value NewDomain(Napi::Env env, const std::shared_ptr<Connection>& connection, DomainRef domain);

// Which machine an event or a record is about.
struct DomainName {
  explicit DomainName(virDomainPtr domain);
  // {name, uuid, id}; id is -1 where it does not run
  Napi::Object ToValue(Napi::Env env) const;
  std::string name;
  std::string uuid;
  int id;
};

}  // namespace vmferry::libvirt
