// Calls about a connection and the host behind it.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "../arguments.h"
#include "binding.h"
#include "calls.h"

namespace vmferry::libvirt {

namespace {

using ListOfTexts = std::vector<std::string>;

Product Texts(ListOfTexts texts) {
  return [texts = std::move(texts)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, texts.size());
    for (uint32_t i = 0; i < texts.size(); i++) list.Set(i, texts[i]);
    return list.As<Napi::Value>();
  };
}

Product NodeInfo(virConnectPtr connection) {
  virNodeInfo info{};
  VIRT(virNodeGetInfo, connection, &info);
  return [info](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("model", std::string(info.model));
    object.Set("memoryKib", Napi::BigInt::New(env, static_cast<uint64_t>(info.memory)));
    object.Set("cpus", info.cpus);
    object.Set("mhz", info.mhz);
    object.Set("numaNodes", info.nodes);
    object.Set("socketsPerNode", info.sockets);
    object.Set("coresPerSocket", info.cores);
    object.Set("threadsPerCore", info.threads);
    return object.As<Napi::Value>();
  };
}

Product MemoryStats(virConnectPtr connection, int cell) {
  int count = 0;
  VIRT(virNodeGetMemoryStats, connection, cell, nullptr, &count, 0);
  std::vector<virNodeMemoryStats> stats(static_cast<size_t>(count));
  if (count > 0) VIRT(virNodeGetMemoryStats, connection, cell, stats.data(), &count, 0);
  return [stats = std::move(stats)](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    for (const virNodeMemoryStats& each : stats) {
      object.Set(each.field, Napi::BigInt::New(env, static_cast<uint64_t>(each.value)));
    }
    return object.As<Napi::Value>();
  };
}

// By cell, then by page size, as asked for.
Product FreePages(virConnectPtr connection, std::vector<unsigned int> sizes_kib, int first_cell, unsigned int cells) {
  std::vector<unsigned long long> counts(sizes_kib.size() * cells);
  const int filled = VIRT(virNodeGetFreePages, connection, static_cast<unsigned int>(sizes_kib.size()),
                          sizes_kib.data(), first_cell, cells, counts.data(), 0);
  counts.resize(static_cast<size_t>(filled));
  return [counts = std::move(counts)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, counts.size());
    for (uint32_t i = 0; i < counts.size(); i++) {
      list.Set(i, Napi::BigInt::New(env, static_cast<uint64_t>(counts[i])));
    }
    return list.As<Napi::Value>();
  };
}

Product CpuModels(virConnectPtr connection, const char* architecture) {
  char** names = nullptr;
  const int count = VIRT(virConnectGetCPUModelNames, connection, architecture, &names, 0);
  ListOfTexts texts;
  for (int i = 0; i < count; i++) {
    texts.emplace_back(names[i]);
    std::free(names[i]);
  }
  std::free(names);
  return Texts(std::move(texts));
}

struct Network {
  std::string name;
  std::string uuid;
  // "" where there is none.
  std::string bridge;
  bool active;
};

Product Networks(virConnectPtr connection) {
  virNetworkPtr* found = nullptr;
  const int count = VIRT(virConnectListAllNetworks, connection, &found, 0);
  std::vector<Network> networks;
  for (int i = 0; i < count; i++) {
    const virNetworkPtr network = found[i];
    char uuid[VIR_UUID_STRING_BUFLEN] = "";
    Lib().virNetworkGetUUIDString(network, uuid);
    char* const bridge = Lib().virNetworkGetBridgeName(network);
    networks.push_back({Lib().virNetworkGetName(network), uuid, bridge == nullptr ? "" : bridge,
                        Lib().virNetworkIsActive(network) == 1});
    std::free(bridge);
    Lib().virNetworkFree(network);
  }
  std::free(found);
  return [networks = std::move(networks)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, networks.size());
    for (uint32_t i = 0; i < networks.size(); i++) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("name", networks[i].name);
      object.Set("uuid", networks[i].uuid);
      object.Set("bridge", networks[i].bridge);
      object.Set("active", networks[i].active);
      list.Set(i, object);
    }
    return list.As<Napi::Value>();
  };
}

Product NetworkFilters(virConnectPtr connection) {
  virNWFilterPtr* found = nullptr;
  const int count = VIRT(virConnectListAllNWFilters, connection, &found, 0);
  ListOfTexts names;
  for (int i = 0; i < count; i++) {
    names.emplace_back(Lib().virNWFilterGetName(found[i]));
    Lib().virNWFilterFree(found[i]);
  }
  std::free(found);
  return Texts(std::move(names));
}

}  // namespace

void ExportHostCalls(Napi::Object table) {
  ConnectionCall(table, "isAlive", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return Boolean(VIRT(virConnectIsAlive, c) == 1); };
  });
  ConnectionCall(table, "isEncrypted", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return Boolean(VIRT(virConnectIsEncrypted, c) == 1); };
  });
  ConnectionCall(table, "isSecure", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return Boolean(VIRT(virConnectIsSecure, c) == 1); };
  });
  ConnectionCall(table, "hostname", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return OwnText(VIRT(virConnectGetHostname, c)); };
  });
  ConnectionCall(table, "uri", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return OwnText(VIRT(virConnectGetURI, c)); };
  });
  ConnectionCall(table, "driver", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return Text(VIRT(virConnectGetType, c)); };
  });
  ConnectionCall(table, "hypervisorVersion", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) {
      unsigned long version = 0;
      VIRT(virConnectGetVersion, c, &version);
      return Number(static_cast<double>(version));
    };
  });
  // Whether the daemon answers is found out by it: not behind calls that it leaves unanswered.
  ConnectionCall(
      table, "daemonVersion",
      [](Arguments&) -> OnConnection {
        return [](virConnectPtr c) {
          unsigned long version = 0;
          VIRT(virConnectGetLibVersion, c, &version);
          return Number(static_cast<double>(version));
        };
      },
      On::OwnThread);
  ConnectionCall(table, "maxVcpus", [](Arguments& a) -> OnConnection {
    return [type = a.MaybeText()](virConnectPtr c) { return Number(VIRT(virConnectGetMaxVcpus, c, OrNull(type))); };
  });
  ConnectionCall(table, "capabilities", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) { return OwnText(VIRT(virConnectGetCapabilities, c)); };
  });
  ConnectionCall(table, "domainCapabilities", [](Arguments& a) -> OnConnection {
    const auto emulator = a.MaybeText();
    const auto architecture = a.MaybeText();
    const auto machine = a.MaybeText();
    const auto type = a.MaybeText();
    return [emulator, architecture, machine, type](virConnectPtr c) {
      return OwnText(VIRT(virConnectGetDomainCapabilities, c, OrNull(emulator), OrNull(architecture), OrNull(machine),
                          OrNull(type), 0));
    };
  });
  ConnectionCall(table, "cpuModels", [](Arguments& a) -> OnConnection {
    return [architecture = a.Text()](virConnectPtr c) { return CpuModels(c, architecture.c_str()); };
  });
  ConnectionCall(table, "compareCpu", [](Arguments& a) -> OnConnection {
    const std::string xml = a.Text();
    const uint32_t flags = a.U32();
    return [xml, flags](virConnectPtr c) { return Number(VIRT(virConnectCompareCPU, c, xml.c_str(), flags)); };
  });
  ConnectionCall(table, "compareHypervisorCpu", [](Arguments& a) -> OnConnection {
    const auto emulator = a.MaybeText();
    const auto architecture = a.MaybeText();
    const auto machine = a.MaybeText();
    const auto type = a.MaybeText();
    const std::string xml = a.Text();
    const uint32_t flags = a.U32();
    return [emulator, architecture, machine, type, xml, flags](virConnectPtr c) {
      return Number(VIRT(virConnectCompareHypervisorCPU, c, OrNull(emulator), OrNull(architecture), OrNull(machine),
                         OrNull(type), xml.c_str(), flags));
    };
  });
  ConnectionCall(table, "nodeInfo", [](Arguments&) -> OnConnection { return NodeInfo; });
  ConnectionCall(table, "freeMemory", [](Arguments&) -> OnConnection {
    return [](virConnectPtr c) {
      // 0 says that it failed.
      const unsigned long long bytes = Lib().virNodeGetFreeMemory(c);
      if (bytes == 0) ThrowLast("virNodeGetFreeMemory");
      return Big(bytes);
    };
  });
  ConnectionCall(table, "memoryStats", [](Arguments& a) -> OnConnection {
    return [cell = a.I32()](virConnectPtr c) { return MemoryStats(c, cell); };
  });
  ConnectionCall(table, "freePages", [](Arguments& a) -> OnConnection {
    const Words sizes = WordsOf(a.Any(), "sizes must be a Uint32Array");
    std::vector<unsigned int> copy(sizes.data, sizes.data + sizes.size);
    const int32_t first = a.I32();
    const uint32_t cells = a.U32();
    if (cells > 4096 || copy.size() > 64) Throw(a.env(), Code::Bounds, "at most 4096 cells and 64 sizes");
    return [copy, first, cells](virConnectPtr c) { return FreePages(c, copy, first, cells); };
  });
  ConnectionCall(table, "networks", [](Arguments&) -> OnConnection { return Networks; });
  ConnectionCall(table, "networkFilters", [](Arguments&) -> OnConnection { return NetworkFilters; });
}

}  // namespace vmferry::libvirt
