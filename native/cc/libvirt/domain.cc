#include "domain.h"

#include <array>
#include <utility>

#include "failure.h"
#include "handle.h"

namespace vmferry::libvirt {

const napi_type_tag Domain::kTag{0x2d5f0b7c1e6a4c19, 0x9a3d58f7624be0d1};

Domain::Domain(std::shared_ptr<Connection> connection, DomainRef domain)
    : connection_(std::move(connection)), domain_(std::move(domain)) {
  connection_->Add(this);
}

// Without a handle's Drop() where none could be made.
Domain::~Domain() { Free(); }

void Domain::Free() {
  if (!domain_) return;
  connection_->Remove(this);
  GiveBack(connection_->pool(), std::exchange(domain_, nullptr));
}

DomainRef Domain::Take() { return std::exchange(domain_, nullptr); }

Napi::Value NewDomain(Napi::Env env, const std::shared_ptr<Connection>& connection, DomainRef domain) {
  if (connection->closed()) {
    // Closed while the call was under way.
    GiveBack(connection->pool(), std::move(domain));
    throw Failure::Of(Code::Closed, "the connection is closed");
  }
  const DomainName name(domain.get());
  Napi::Object object = Napi::Object::New(env);
  object.Set("handle", NewHandle(env, std::make_shared<Domain>(connection, std::move(domain))));
  object.Set("name", name.name);
  object.Set("uuid", name.uuid);
  return object;
}

DomainName::DomainName(virDomainPtr domain) : id(-1) {
  // These three only read what the reference knows.
  if (const char* const text = Lib().virDomainGetName(domain); text != nullptr) name = text;
  std::array<char, VIR_UUID_STRING_BUFLEN> text{};
  if (Lib().virDomainGetUUIDString(domain, text.data()) == 0) uuid = text.data();
  const unsigned int number = Lib().virDomainGetID(domain);
  if (number != static_cast<unsigned int>(-1)) id = static_cast<int>(number);
}

Napi::Object DomainName::ToValue(Napi::Env env) const {
  Napi::Object object = Napi::Object::New(env);
  object.Set("name", name);
  object.Set("uuid", uuid);
  object.Set("id", id);
  return object;
}

}  // namespace vmferry::libvirt
