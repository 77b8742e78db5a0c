// Takes JavaScript values apart, and throws what src/errors.ts understands.
#pragma once

#include <napi.h>

#include "outcome.h"

namespace vmferry {

// A JavaScript Error with `code` (a number of `Code`) and, if there is one, `errno` (a number).
[[noreturn]] void Throw(Napi::Env env, Code code, const char* message, int system_errno = 0);

// Views stay valid while the JavaScript array is referenced. SharedArrayBuffers are fine.
Bytes BytesOf(const Napi::Value& value, const char* complaint);
Words WordsOf(const Napi::Value& value, const char* complaint);
Doubles DoublesOf(const Napi::Value& value, const char* complaint);

// A whole number from 0 to 2^53 - 1.
bool IsInteger(double number);
uint64_t IntegerOf(const Napi::Value& value, const char* complaint);
uint32_t U32Of(const Napi::Value& value, const char* complaint);
Napi::Function FunctionOf(const Napi::Value& value, const char* complaint);

}  // namespace vmferry
