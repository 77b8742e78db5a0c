// libvirt's typed parameters as plain objects and back. 64-bit fields are bigints, 32-bit ones and doubles numbers.
#pragma once

#include <napi.h>

#include <memory>

#include "library.h"

namespace vmferry::libvirt {

// A list, which it frees.
class TypedParameters {
 public:
  TypedParameters() = default;
  ~TypedParameters();
  TypedParameters(const TypedParameters&) = delete;
  TypedParameters& operator=(const TypedParameters&) = delete;

  // Of [field, type, value]: type is a number of virTypedParameterType, and the value must be of that type. Throws.
  static std::shared_ptr<TypedParameters> Of(const Napi::Value& value);
  // A copy, of what libvirt only lends; on any thread.
  static std::shared_ptr<TypedParameters> CopyOf(const virTypedParameter* list, int count);

  // By field. One that comes several times is an array.
  static Napi::Object ToValue(Napi::Env env, const virTypedParameter* list, int count);
  Napi::Object ToValue(Napi::Env env) const { return ToValue(env, list, count); }

  virTypedParameterPtr list = nullptr;
  int count = 0;

 private:
  int room_ = 0;
};

}  // namespace vmferry::libvirt
