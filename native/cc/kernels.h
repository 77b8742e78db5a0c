#pragma once

#include <napi.h>

namespace vmferry {

// Adds pack, unpack, verify, checksum, checksumAsync, scanZero, scanZeroAsync, hash128 and readRecords to the
// table (src/addon.ts has their types).
void ExportKernels(Napi::Env env, Napi::Object table);

}  // namespace vmferry
