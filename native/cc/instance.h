// What one environment (main thread or worker) holds of the addon. The only globals are libvirt itself and its event
// loop, of which a process has one (libvirt/library.h).
#pragma once

#include <napi.h>

#include <memory>

#include "job.h"
#include "page_scan.h"

namespace vmferry {

struct Instance {
  explicit Instance(Napi::Env env) : jobs(env), is_zero(PickIsZero()) {}

  JobPool jobs;
  IsZero is_zero;
  // Two words for the result of checksum(), so that a call allocates nothing.
  Napi::ObjectReference sum;
  uint32_t* sum_words = nullptr;
  // The libvirt part's own, once it is used: see libvirt/mailbox.h.
  std::shared_ptr<void> libvirt;

  static Instance& Of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }
};

}  // namespace vmferry
