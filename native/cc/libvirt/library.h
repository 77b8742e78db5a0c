// libvirt as it is found on this host when it is first used: nothing of the addon links against it.
#pragma once

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <string>

namespace vmferry::libvirt {

// In every libvirt from 7.2 on.
#define VMFERRY_LIBVIRT_FUNCTIONS(F)         \
  F(virInitialize)                           \
  F(virGetVersion)                           \
  F(virGetLastError)                         \
  F(virResetLastError)                       \
  F(virSetErrorFunc)                         \
  F(virEventRegisterDefaultImpl)             \
  F(virEventRunDefaultImpl)                  \
  F(virConnectOpenAuth)                      \
  F(virConnectClose)                         \
  F(virConnectRef)                           \
  F(virConnectSetKeepAlive)                  \
  F(virConnectRegisterCloseCallback)         \
  F(virConnectUnregisterCloseCallback)       \
  F(virConnectIsAlive)                       \
  F(virConnectIsEncrypted)                   \
  F(virConnectIsSecure)                      \
  F(virConnectGetHostname)                   \
  F(virConnectGetURI)                        \
  F(virConnectGetType)                       \
  F(virConnectGetVersion)                    \
  F(virConnectGetLibVersion)                 \
  F(virConnectGetMaxVcpus)                   \
  F(virConnectGetCapabilities)               \
  F(virConnectGetDomainCapabilities)         \
  F(virConnectGetCPUModelNames)              \
  F(virConnectCompareCPU)                    \
  F(virConnectCompareHypervisorCPU)          \
  F(virConnectBaselineHypervisorCPU)         \
  F(virNodeGetInfo)                          \
  F(virNodeGetFreeMemory)                    \
  F(virNodeGetMemoryStats)                   \
  F(virNodeGetFreePages)                     \
  F(virConnectListAllDomains)                \
  F(virConnectListAllNetworks)               \
  F(virNetworkGetName)                       \
  F(virNetworkGetUUIDString)                 \
  F(virNetworkGetBridgeName)                 \
  F(virNetworkIsActive)                      \
  F(virNetworkFree)                          \
  F(virConnectListAllNWFilters)              \
  F(virNWFilterGetName)                      \
  F(virNWFilterFree)                         \
  F(virConnectListAllStoragePools)           \
  F(virStoragePoolLookupByName)              \
  F(virStoragePoolGetName)                   \
  F(virStoragePoolGetUUIDString)             \
  F(virStoragePoolIsActive)                  \
  F(virStoragePoolFree)                      \
  F(virStorageVolLookupByName)               \
  F(virStorageVolGetInfo)                    \
  F(virStorageVolGetPath)                    \
  F(virStorageVolDelete)                     \
  F(virStorageVolFree)                       \
  F(virConnectListAllSecrets)                \
  F(virSecretGetUUIDString)                  \
  F(virSecretGetUsageType)                   \
  F(virSecretGetUsageID)                     \
  F(virSecretFree)                           \
  F(virDomainLookupByName)                   \
  F(virDomainLookupByUUIDString)             \
  F(virDomainLookupByID)                     \
  F(virDomainDefineXMLFlags)                 \
  F(virDomainCreateXML)                      \
  F(virDomainFree)                           \
  F(virDomainGetName)                        \
  F(virDomainGetUUIDString)                  \
  F(virDomainGetID)                          \
  F(virDomainGetXMLDesc)                     \
  F(virDomainGetInfo)                        \
  F(virDomainGetState)                       \
  F(virDomainGetBlockInfo)                   \
  F(virDomainGetBlockJobInfo)                \
  F(virDomainIsActive)                       \
  F(virDomainIsPersistent)                   \
  F(virDomainIsUpdated)                      \
  F(virDomainCreateWithFlags)                \
  F(virDomainDestroyFlags)                   \
  F(virDomainShutdownFlags)                  \
  F(virDomainUndefineFlags)                  \
  F(virDomainSuspend)                        \
  F(virDomainResume)                         \
  F(virDomainAttachDeviceFlags)              \
  F(virDomainDetachDeviceFlags)              \
  F(virDomainInterfaceAddresses)             \
  F(virDomainInterfaceFree)                  \
  F(virConnectGetAllDomainStats)             \
  F(virDomainListGetStats)                   \
  F(virDomainStatsRecordListFree)            \
  F(virDomainStartDirtyRateCalc)             \
  F(virDomainMigrateToURI3)                  \
  F(virDomainMigrate3)                       \
  F(virDomainMigrateStartPostCopy)           \
  F(virDomainMigrateGetMaxDowntime)          \
  F(virDomainMigrateSetMaxDowntime)          \
  F(virDomainMigrateGetMaxSpeed)             \
  F(virDomainMigrateSetMaxSpeed)             \
  F(virDomainMigrateGetCompressionCache)     \
  F(virDomainMigrateSetCompressionCache)     \
  F(virDomainGetJobInfo)                     \
  F(virDomainGetJobStats)                    \
  F(virDomainAbortJob)                       \
  F(virConnectDomainEventRegisterAny)        \
  F(virConnectDomainEventDeregisterAny)      \
  F(virTypedParamsAddInt)                    \
  F(virTypedParamsAddUInt)                   \
  F(virTypedParamsAddLLong)                  \
  F(virTypedParamsAddULLong)                 \
  F(virTypedParamsAddDouble)                 \
  F(virTypedParamsAddBoolean)                \
  F(virTypedParamsAddString)                 \
  F(virTypedParamsFree)

// In libvirt-qemu, which may be absent: then they are null.
#define VMFERRY_LIBVIRT_QEMU_FUNCTIONS(F)     \
  F(virDomainQemuMonitorCommand)              \
  F(virDomainQemuAgentCommand)                \
  F(virConnectDomainQemuMonitorEventRegister) \
  F(virConnectDomainQemuMonitorEventDeregister)

struct Library {
#define VMFERRY_MEMBER(function) decltype(&::function) function = nullptr;
  VMFERRY_LIBVIRT_FUNCTIONS(VMFERRY_MEMBER)
  VMFERRY_LIBVIRT_QEMU_FUNCTIONS(VMFERRY_MEMBER)
#undef VMFERRY_MEMBER
  // From 8.5 on, and so perhaps not in the headers; null in an older libvirt.
  int (*virDomainAbortJobFlags)(virDomainPtr domain, unsigned int flags) = nullptr;
};

// Loads libvirt from `path`, and libvirt-qemu from `qemu_path`, the first time; silences its printing to standard
// error and starts its event loop. Returns "" or why it cannot be used; a failure is tried again. Any thread.
std::string Load(const char* path, const char* qemu_path);

// Only after a Load() that succeeded. It stays for the life of the process.
const Library& Lib();

}  // namespace vmferry::libvirt
