// Calls about what a host keeps for its domains: storage pools, their volumes, secrets.
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "binding.h"
#include "calls.h"

namespace vmferry::libvirt {

namespace {

struct Pool {
  std::string name;
  std::string uuid;
  bool active;
};

Product Pools(virConnectPtr connection) {
  virStoragePoolPtr* found = nullptr;
  const int count = VIRT(virConnectListAllStoragePools, connection, &found, 0);
  std::vector<Pool> pools;
  for (int i = 0; i < count; i++) {
    char uuid[VIR_UUID_STRING_BUFLEN] = "";
    Lib().virStoragePoolGetUUIDString(found[i], uuid);
    pools.push_back({Lib().virStoragePoolGetName(found[i]), uuid, Lib().virStoragePoolIsActive(found[i]) == 1});
    Lib().virStoragePoolFree(found[i]);
  }
  std::free(found);
  return [pools = std::move(pools)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, pools.size());
    for (uint32_t i = 0; i < pools.size(); i++) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("name", pools[i].name);
      object.Set("uuid", pools[i].uuid);
      object.Set("active", pools[i].active);
      list.Set(i, object);
    }
    return list.As<Napi::Value>();
  };
}

using PoolRef = std::unique_ptr<virStoragePool, decltype(virStoragePoolFree)*>;
using VolumeRef = std::unique_ptr<virStorageVol, decltype(virStorageVolFree)*>;

VolumeRef VolumeOf(virConnectPtr connection, const char* pool, const char* name) {
  const PoolRef in(VIRT(virStoragePoolLookupByName, connection, pool), Lib().virStoragePoolFree);
  return {VIRT(virStorageVolLookupByName, in.get(), name), Lib().virStorageVolFree};
}

Product Volume(virConnectPtr connection, const char* pool, const char* name) {
  const VolumeRef volume = VolumeOf(connection, pool, name);
  virStorageVolInfo info{};
  VIRT(virStorageVolGetInfo, volume.get(), &info);
  char* const own = VIRT(virStorageVolGetPath, volume.get());
  std::string path = own;
  std::free(own);
  return [info, path = std::move(path)](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", info.type);
    object.Set("path", path);
    object.Set("capacityBytes", Napi::BigInt::New(env, static_cast<uint64_t>(info.capacity)));
    object.Set("allocationBytes", Napi::BigInt::New(env, static_cast<uint64_t>(info.allocation)));
    return object.As<Napi::Value>();
  };
}

Product RemoveVolume(virConnectPtr connection, const char* pool, const char* name) {
  VIRT(virStorageVolDelete, VolumeOf(connection, pool, name).get(), 0);
  return Nothing();
}

struct Secret {
  std::string uuid;
  int usage_type;
  std::string usage;
};

Product Secrets(virConnectPtr connection) {
  virSecretPtr* found = nullptr;
  const int count = VIRT(virConnectListAllSecrets, connection, &found, 0);
  std::vector<Secret> secrets;
  for (int i = 0; i < count; i++) {
    char uuid[VIR_UUID_STRING_BUFLEN] = "";
    Lib().virSecretGetUUIDString(found[i], uuid);
    const char* const usage = Lib().virSecretGetUsageID(found[i]);
    secrets.push_back({uuid, Lib().virSecretGetUsageType(found[i]), usage == nullptr ? "" : usage});
    Lib().virSecretFree(found[i]);
  }
  std::free(found);
  return [secrets = std::move(secrets)](Napi::Env env) {
    Napi::Array list = Napi::Array::New(env, secrets.size());
    for (uint32_t i = 0; i < secrets.size(); i++) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("uuid", secrets[i].uuid);
      object.Set("usageType", secrets[i].usage_type);
      object.Set("usage", secrets[i].usage);
      list.Set(i, object);
    }
    return list.As<Napi::Value>();
  };
}

}  // namespace

void ExportStorageCalls(Napi::Object table) {
  ConnectionCall(table, "pools", [](Arguments&) -> OnConnection { return Pools; });
  ConnectionCall(table, "volume", [](Arguments& a) -> OnConnection {
    const std::string pool = a.Text();
    return [pool, name = a.Text()](virConnectPtr c) { return Volume(c, pool.c_str(), name.c_str()); };
  });
  // Wiping nothing, but a pool may take its time.
  ConnectionCall(
      table, "removeVolume",
      [](Arguments& a) -> OnConnection {
        const std::string pool = a.Text();
        return [pool, name = a.Text()](virConnectPtr c) { return RemoveVolume(c, pool.c_str(), name.c_str()); };
      },
      On::OwnThread);
  ConnectionCall(table, "secrets", [](Arguments&) -> OnConnection { return Secrets; });
}

}  // namespace vmferry::libvirt
