// Calls on one domain: its life, what it is, its devices and addresses.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "binding.h"
#include "calls.h"

namespace vmferry::libvirt {

namespace {

template <auto Function>
OnDomain WithFlags(Arguments& a, const char* name) {
  return [flags = a.U32(), name](virDomainPtr d) {
    Checked(name, (Lib().*Function)(d, flags));
    return Nothing();
  };
}

template <auto Function>
OnDomain IsSo(const char* name) {
  return [name](virDomainPtr d) { return Boolean(Checked(name, (Lib().*Function)(d)) == 1); };
}

// Names the member and the function in one.
#define VMFERRY_FLAGGED(function) WithFlags<&Library::function>(a, #function)
#define VMFERRY_IS(function) IsSo<&Library::function>(#function)

Product Info(virDomainPtr domain) {
  virDomainInfo info{};
  VIRT(virDomainGetInfo, domain, &info);
  return [info](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("state", static_cast<double>(info.state));
    object.Set("maxMemoryKib", Napi::BigInt::New(env, static_cast<uint64_t>(info.maxMem)));
    object.Set("memoryKib", Napi::BigInt::New(env, static_cast<uint64_t>(info.memory)));
    object.Set("vcpus", static_cast<double>(info.nrVirtCpu));
    object.Set("cpuTimeNs", Napi::BigInt::New(env, static_cast<uint64_t>(info.cpuTime)));
    return object.As<Napi::Value>();
  };
}

Product State(virDomainPtr domain) {
  int state = 0;
  int reason = 0;
  VIRT(virDomainGetState, domain, &state, &reason, 0);
  return [state, reason](Napi::Env env) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0U, state);
    pair.Set(1U, reason);
    return pair.As<Napi::Value>();
  };
}

Product BlockInfo(virDomainPtr domain, const char* disk) {
  virDomainBlockInfo info{};
  VIRT(virDomainGetBlockInfo, domain, disk, &info, 0);
  return [info](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("capacityBytes", Napi::BigInt::New(env, static_cast<uint64_t>(info.capacity)));
    object.Set("allocationBytes", Napi::BigInt::New(env, static_cast<uint64_t>(info.allocation)));
    object.Set("physicalBytes", Napi::BigInt::New(env, static_cast<uint64_t>(info.physical)));
    return object.As<Napi::Value>();
  };
}

// Undefined where none is under way.
Product BlockJob(virDomainPtr domain, const char* disk) {
  virDomainBlockJobInfo info{};
  const bool found =
      VIRT(virDomainGetBlockJobInfo, domain, disk, &info, VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES) == 1;
  return [info, found](Napi::Env env) {
    if (!found) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", info.type);
    object.Set("bandwidthBytesPerSec", Napi::BigInt::New(env, static_cast<uint64_t>(info.bandwidth)));
    object.Set("processed", Napi::BigInt::New(env, static_cast<uint64_t>(info.cur)));
    object.Set("total", Napi::BigInt::New(env, static_cast<uint64_t>(info.end)));
    return object.As<Napi::Value>();
  };
}

struct Interface {
  struct Address {
    int type;
    std::string address;
    unsigned int prefix;
  };
  std::string name;
  std::string hardware_address;
  std::vector<Address> addresses;
};

Product Addresses(virDomainPtr domain, unsigned int source) {
  virDomainInterfacePtr* found = nullptr;
  const int count = VIRT(virDomainInterfaceAddresses, domain, &found, source, 0);
  std::vector<Interface> interfaces;
  for (int i = 0; i < count; i++) {
    const virDomainInterface& from = *found[i];
    Interface& to = interfaces.emplace_back();
    to.name = from.name == nullptr ? "" : from.name;
    to.hardware_address = from.hwaddr == nullptr ? "" : from.hwaddr;
    for (unsigned int j = 0; j < from.naddrs; j++) {
      to.addresses.push_back({from.addrs[j].type, from.addrs[j].addr, from.addrs[j].prefix});
    }
    Lib().virDomainInterfaceFree(found[i]);
  }
  std::free(found);
  return [interfaces = std::move(interfaces)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, interfaces.size());
    for (uint32_t i = 0; i < interfaces.size(); i++) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("name", interfaces[i].name);
      object.Set("hardwareAddress", interfaces[i].hardware_address);
      Napi::Array addresses = Napi::Array::New(env, interfaces[i].addresses.size());
      for (uint32_t j = 0; j < interfaces[i].addresses.size(); j++) {
        const Interface::Address& from = interfaces[i].addresses[j];
        Napi::Object address = Napi::Object::New(env);
        address.Set("type", from.type);
        address.Set("address", from.address);
        address.Set("prefix", from.prefix);
        addresses.Set(j, address);
      }
      object.Set("addresses", addresses);
      list.Set(i, object);
    }
    return list.As<Napi::Value>();
  };
}

}  // namespace

void ExportDomainCalls(Napi::Object table) {
  DomainCall(table, "id", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) { return Number(DomainName(d).id); };
  });
  DomainCall(table, "xml", [](Arguments& a) -> OnDomain {
    return [flags = a.U32()](virDomainPtr d) { return OwnText(VIRT(virDomainGetXMLDesc, d, flags)); };
  });
  DomainCall(table, "info", [](Arguments&) -> OnDomain { return Info; });
  DomainCall(table, "state", [](Arguments&) -> OnDomain { return State; });
  DomainCall(table, "isActive", [](Arguments&) -> OnDomain { return VMFERRY_IS(virDomainIsActive); });
  DomainCall(table, "isPersistent", [](Arguments&) -> OnDomain { return VMFERRY_IS(virDomainIsPersistent); });
  DomainCall(table, "isUpdated", [](Arguments&) -> OnDomain { return VMFERRY_IS(virDomainIsUpdated); });
  DomainCall(table, "undefine", [](Arguments& a) -> OnDomain { return VMFERRY_FLAGGED(virDomainUndefineFlags); });
  DomainCall(table, "shutdown", [](Arguments& a) -> OnDomain { return VMFERRY_FLAGGED(virDomainShutdownFlags); });
  // These wait for the hypervisor's start and end.
  DomainCall(
      table, "create", [](Arguments& a) -> OnDomain { return VMFERRY_FLAGGED(virDomainCreateWithFlags); },
      On::OwnThread);
  DomainCall(
      table, "destroy", [](Arguments& a) -> OnDomain { return VMFERRY_FLAGGED(virDomainDestroyFlags); },
      On::OwnThread);
  DomainCall(table, "suspend", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) {
      VIRT(virDomainSuspend, d);
      return Nothing();
    };
  });
  DomainCall(table, "resume", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) {
      VIRT(virDomainResume, d);
      return Nothing();
    };
  });
  DomainCall(table, "attachDevice", [](Arguments& a) -> OnDomain {
    const std::string xml = a.Text();
    return [xml, flags = a.U32()](virDomainPtr d) {
      VIRT(virDomainAttachDeviceFlags, d, xml.c_str(), flags);
      return Nothing();
    };
  });
  DomainCall(table, "detachDevice", [](Arguments& a) -> OnDomain {
    const std::string xml = a.Text();
    return [xml, flags = a.U32()](virDomainPtr d) {
      VIRT(virDomainDetachDeviceFlags, d, xml.c_str(), flags);
      return Nothing();
    };
  });
  DomainCall(table, "blockInfo", [](Arguments& a) -> OnDomain {
    return [disk = a.Text()](virDomainPtr d) { return BlockInfo(d, disk.c_str()); };
  });
  DomainCall(table, "blockJob", [](Arguments& a) -> OnDomain {
    return [disk = a.Text()](virDomainPtr d) { return BlockJob(d, disk.c_str()); };
  });
  DomainCall(table, "addresses", [](Arguments& a) -> OnDomain {
    return [source = a.U32()](virDomainPtr d) { return Addresses(d, source); };
  });
}

}  // namespace vmferry::libvirt
