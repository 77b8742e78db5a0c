#include "arguments.h"

#include <cmath>

namespace vmferry {

void Throw(Napi::Env env, Code code, const char* message, int system_errno) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::Number::New(env, static_cast<double>(code)));
  if (system_errno != 0) error.Set("errno", Napi::Number::New(env, system_errno));
  throw error;
}

namespace {

template <typename View, typename Element>
View ViewOf(const Napi::Value& value, napi_typedarray_type wanted, const char* complaint) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr);
  if (status != napi_ok || type != wanted) Throw(value.Env(), Code::Bounds, complaint);
  return {static_cast<Element*>(data), length};
}

}  // namespace

Bytes BytesOf(const Napi::Value& value, const char* complaint) {
  return ViewOf<Bytes, uint8_t>(value, napi_uint8_array, complaint);
}

Words WordsOf(const Napi::Value& value, const char* complaint) {
  return ViewOf<Words, uint32_t>(value, napi_uint32_array, complaint);
}

Doubles DoublesOf(const Napi::Value& value, const char* complaint) {
  return ViewOf<Doubles, double>(value, napi_float64_array, complaint);
}

bool IsInteger(double number) {
  return number >= 0 && number <= 9007199254740991.0 && std::floor(number) == number;
}

uint64_t IntegerOf(const Napi::Value& value, const char* complaint) {
  double number = -1;
  const napi_status status = napi_get_value_double(value.Env(), value, &number);
  if (status != napi_ok || !IsInteger(number)) Throw(value.Env(), Code::Bounds, complaint);
  return static_cast<uint64_t>(number);
}

uint32_t U32Of(const Napi::Value& value, const char* complaint) {
  const uint64_t number = IntegerOf(value, complaint);
  if (number > UINT32_MAX) Throw(value.Env(), Code::Bounds, complaint);
  return static_cast<uint32_t>(number);
}

Napi::Function FunctionOf(const Napi::Value& value, const char* complaint) {
  if (!value.IsFunction()) Throw(value.Env(), Code::Bounds, complaint);
  return value.As<Napi::Function>();
}

}  // namespace vmferry
