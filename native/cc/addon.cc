// The table that src/addon.ts loads: thin, checked on both sides of the border.
#include <napi.h>

#include <memory>

#include "frame_lane.h"
#include "instance.h"
#include "kernels.h"
#include "local_socket.h"
#include "packet_socket.h"
#include "page_codec.h"
#ifdef VMFERRY_LIBVIRT
#include "libvirt/binding.h"
#endif

namespace vmferry {
namespace {

Napi::Object Initialise(Napi::Env env, Napi::Object table) {
  // The environment takes the instance over and deletes it when it goes down.
  env.SetInstanceData<Instance>(std::make_unique<Instance>(env).release());

  Napi::Uint32Array sum = Napi::Uint32Array::New(env, 2);
  Instance& instance = Instance::Of(env);
  instance.sum = Napi::Persistent(sum.As<Napi::Object>());
  instance.sum_words = sum.Data();

  Napi::Object features = Napi::Object::New(env);
  features.Set("lz4", HasLz4());
  features.Set("xxhash", HasXxhash());
#ifdef VMFERRY_LIBVIRT
  features.Set("libvirt", true);
  libvirt::ExportLibvirt(env, table);
#else
  features.Set("libvirt", false);
#endif
  table.Set("features", features);

  ExportKernels(env, table);
  FrameLane::Export(env, table);
  LocalSocket::Export(env, table);
  PacketSocket::Export(env, table);
  return table;
}

}  // namespace
}  // namespace vmferry

static Napi::Object InitialiseAddon(Napi::Env env, Napi::Object table) {
  return vmferry::Initialise(env, table);
}

NODE_API_MODULE(vmferry, InitialiseAddon)
