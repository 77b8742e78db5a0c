#include "settle.h"

#include <array>

namespace vmferry {

void Settle(napi_env env, napi_value settle, const Outcome& outcome) {
  std::array<napi_value, 7> arguments{};
  napi_value undefined = nullptr;
  bool ok = napi_get_undefined(env, &undefined) == napi_ok;
  ok = ok && napi_create_uint32(env, static_cast<uint32_t>(outcome.code), &arguments[0]) == napi_ok;
  for (size_t i = 0; i < outcome.values.size(); i++) {
    ok = ok && napi_create_double(env, outcome.values[i], &arguments[1 + i]) == napi_ok;
  }
  size_t count = 5;
  if (outcome.code != Code::Ok) {
    ok = ok && napi_create_string_utf8(env, outcome.message, NAPI_AUTO_LENGTH, &arguments[5]) == napi_ok;
    ok = ok && napi_create_int32(env, outcome.system_errno, &arguments[6]) == napi_ok;
    count = arguments.size();
  }
  if (ok) napi_call_function(env, undefined, settle, count, arguments.data(), nullptr);
}

}  // namespace vmferry
