// The libvirt part of the table.
#pragma once

#include <napi.h>

namespace vmferry::libvirt {

void ExportLibvirt(Napi::Env env, Napi::Object table);

// Its parts, one in a file.
void ExportHostCalls(Napi::Object table);
void ExportLookupCalls(Napi::Object table);
void ExportDomainCalls(Napi::Object table);
void ExportStorageCalls(Napi::Object table);
void ExportStatisticsCalls(Napi::Object table);
void ExportMigrationCalls(Napi::Object table);
void ExportQemuCalls(Napi::Object table);
void ExportEvents(Napi::Env env, Napi::Object table);

}  // namespace vmferry::libvirt
