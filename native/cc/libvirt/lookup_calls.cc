// Calls on a connection that bring domains.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "binding.h"
#include "calls.h"

namespace vmferry::libvirt {

namespace {

Product ListOf(const std::shared_ptr<Connection>& on, virConnectPtr connection, unsigned int flags) {
  virDomainPtr* found = nullptr;
  const int count = VIRT(virConnectListAllDomains, connection, &found, flags);
  auto domains = std::make_shared<std::vector<DomainRef>>();
  for (int i = 0; i < count; i++) domains->push_back(Own(found[i]));
  std::free(found);
  return [on, domains](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, domains->size());
    for (uint32_t i = 0; i < domains->size(); i++) list.Set(i, NewDomain(env, on, std::move((*domains)[i])));
    return list.As<Napi::Value>();
  };
}

}  // namespace

void ExportLookupCalls(Napi::Object table) {
  ConnectionCall(table, "list", [](Arguments& a) -> OnConnection {
    return [on = a.connection(), flags = a.U32()](virConnectPtr c) { return ListOf(on, c, flags); };
  });
  ConnectionCall(table, "lookupByName", [](Arguments& a) -> OnConnection {
    return [on = a.connection(), name = a.Text()](virConnectPtr c) {
      return OwnDomain(on, VIRT(virDomainLookupByName, c, name.c_str()));
    };
  });
  ConnectionCall(table, "lookupByUuid", [](Arguments& a) -> OnConnection {
    return [on = a.connection(), uuid = a.Text()](virConnectPtr c) {
      return OwnDomain(on, VIRT(virDomainLookupByUUIDString, c, uuid.c_str()));
    };
  });
  ConnectionCall(table, "lookupById", [](Arguments& a) -> OnConnection {
    return [on = a.connection(), id = a.I32()](virConnectPtr c) {
      return OwnDomain(on, VIRT(virDomainLookupByID, c, id));
    };
  });
  ConnectionCall(table, "define", [](Arguments& a) -> OnConnection {
    const std::string xml = a.Text();
    return [on = a.connection(), xml, flags = a.U32()](virConnectPtr c) {
      return OwnDomain(on, VIRT(virDomainDefineXMLFlags, c, xml.c_str(), flags));
    };
  });
  // Starting takes as long as the hypervisor's start.
  ConnectionCall(
      table, "createTransient",
      [](Arguments& a) -> OnConnection {
        const std::string xml = a.Text();
        return [on = a.connection(), xml, flags = a.U32()](virConnectPtr c) {
          return OwnDomain(on, VIRT(virDomainCreateXML, c, xml.c_str(), flags));
        };
      },
      On::OwnThread);
}

}  // namespace vmferry::libvirt
