#include "binding.h"

#include <string>

#include "../arguments.h"
#include "connection.h"
#include "library.h"
#include "typed_parameters.h"

namespace vmferry::libvirt {

namespace {

// load(library, qemuLibrary): the version of libvirt as a number, 9000000 for 9.0.0. Before anything else.
Napi::Value LoadLibrary(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString() || !info[1].IsString()) Throw(env, Code::Bounds, "a library must be a path");
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const std::string qemu_path = info[1].As<Napi::String>().Utf8Value();
  const std::string failure = Load(path.c_str(), qemu_path.c_str());
  if (!failure.empty()) Throw(env, Code::Missing, failure.c_str());
  unsigned long version = 0;
  Lib().virGetVersion(&version, nullptr, nullptr);
  return Napi::Number::New(env, static_cast<double>(version));
}

// typedParameters(entries): what libvirt makes of them, as an object again
Napi::Value RoundTrip(const Napi::CallbackInfo& info) {
  return TypedParameters::Of(info[0])->ToValue(info.Env());
}

}  // namespace

void ExportLibvirt(Napi::Env env, Napi::Object table) {
  Napi::Object libvirt = Napi::Object::New(env);
  libvirt.Set("load", Napi::Function::New<LoadLibrary>(env, "load"));
  libvirt.Set("typedParameters", Napi::Function::New<RoundTrip>(env, "typedParameters"));
  ExportConnection(env, libvirt);
  ExportHostCalls(libvirt);
  ExportLookupCalls(libvirt);
  ExportDomainCalls(libvirt);
  ExportStorageCalls(libvirt);
  ExportStatisticsCalls(libvirt);
  ExportMigrationCalls(libvirt);
  ExportQemuCalls(libvirt);
  ExportEvents(env, libvirt);
  table.Set("libvirt", libvirt);
}

}  // namespace vmferry::libvirt
