#pragma once

#include <napi.h>

namespace vmferry {

// Adds pack, unpack, checksum, checksumAsync, scanZero, scanZeroAsync, hash128 and readRecords to the
// table (src/addon.ts has their types).
void ExportKernels(Napi::Env env, Napi::Object table);

}  // namespace vmferry
