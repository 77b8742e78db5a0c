// A JavaScript object that owns something of libvirt's, and cannot be taken for anything else.
#pragma once

#include <napi.h>

#include <memory>

#include "../arguments.h"

namespace vmferry::libvirt {

// T has a `static const napi_type_tag kTag`, and `void Drop()`: the JavaScript object was collected.
template <typename T>
Napi::Object NewHandle(Napi::Env env, std::shared_ptr<T> content) {
  Napi::Object object = Napi::Object::New(env);
  auto owned = std::make_unique<std::shared_ptr<T>>(std::move(content));
  const auto drop = [](napi_env, void* data, void*) {
    const std::unique_ptr<std::shared_ptr<T>> dropped(static_cast<std::shared_ptr<T>*>(data));
    (*dropped)->Drop();
  };
  if (napi_wrap(env, object, owned.get(), drop, nullptr, nullptr) != napi_ok) {
    Throw(env, Code::System, "no handle could be made", ENOMEM);
  }
  [[maybe_unused]] auto* const given = owned.release();
  if (napi_type_tag_object(env, object, &T::kTag) != napi_ok) {
    Throw(env, Code::System, "no handle could be made", ENOMEM);
  }
  return object;
}

template <typename T>
std::shared_ptr<T> HandleOf(const Napi::Value& value, const char* complaint) {
  const Napi::Env env = value.Env();
  bool tagged = false;
  void* data = nullptr;
  if (!value.IsObject() || napi_check_object_type_tag(env, value, &T::kTag, &tagged) != napi_ok || !tagged ||
      napi_unwrap(env, value, &data) != napi_ok) {
    Throw(env, Code::Bounds, complaint);
  }
  return *static_cast<std::shared_ptr<T>*>(data);
}

}  // namespace vmferry::libvirt
