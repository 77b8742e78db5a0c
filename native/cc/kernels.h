#pragma once

#include <napi.h>

namespace vmferry {

// Adds pack, unpack, verify, checksum, scanZero, scanZeroAsync and hash128 to the table (src/addon.ts has their types).
void ExportKernels(Napi::Env env, Napi::Object table);

}  // namespace vmferry
