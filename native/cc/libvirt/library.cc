#include "library.h"

#include <dlfcn.h>

#include <memory>
#include <mutex>

#include "event_loop.h"

namespace vmferry::libvirt {

namespace {

// Never destroyed: threads of libvirt's may still run when the process exits.
const Library* loaded = nullptr;
std::mutex& LoadLock() {
  static auto* const lock = new std::mutex;
  return *lock;
}

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

void Silence(void*, virErrorPtr) {}

// Code of ours runs on threads that outlive the environment which loaded it: it must not be unmapped under them.
void StayMapped() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&StayMapped), &self) != 0) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
}

std::string LoadOnce(const char* path, const char* qemu_path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) return dlerror();
  auto table = std::make_unique<Library>();
#define VMFERRY_FIND(function) \
  if (!Find(library, #function, table->function)) return "it has no " #function ", as libvirt has from 7.2 on";
  VMFERRY_LIBVIRT_FUNCTIONS(VMFERRY_FIND)
#undef VMFERRY_FIND
  Find(library, "virDomainAbortJobFlags", table->virDomainAbortJobFlags);
  if (void* const qemu = dlopen(qemu_path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); qemu != nullptr) {
#define VMFERRY_FIND_QEMU(function) Find(qemu, #function, table->function);
    VMFERRY_LIBVIRT_QEMU_FUNCTIONS(VMFERRY_FIND_QEMU)
#undef VMFERRY_FIND_QEMU
  }
  StayMapped();
  table->virSetErrorFunc(nullptr, Silence);
  if (table->virInitialize() != 0) return "virInitialize failed";
  const std::string failure = StartEventLoop(*table);
  if (failure.empty()) loaded = table.release();
  return failure;
}

}  // namespace

std::string Load(const char* path, const char* qemu_path) {
  const std::lock_guard<std::mutex> lock(LoadLock());
  return loaded != nullptr ? std::string() : LoadOnce(path, qemu_path);
}

const Library& Lib() { return *loaded; }

}  // namespace vmferry::libvirt
