// How a call on libvirt fails, from the thread that made it to JavaScript.
#pragma once

#include <napi.h>

#include <array>
#include <string>

#include "../outcome.h"
#include "library.h"

namespace vmferry::libvirt {

struct Failure {
  // Ok: libvirt's own error. Anything else is ours, and has only the message.
  Code code = Code::Ok;
  std::string message;
  // libvirt's function, "virDomainSuspend".
  const char* call = "";
  int number = 0;
  int domain = 0;
  int level = 0;
  // Depends on the number; "" where there is none.
  std::array<std::string, 3> details;

  static Failure Of(Code code, const char* message);
  // {code, message, call, number, domain, level, details}
  Napi::Value ToValue(Napi::Env env) const;
};

// Throws a Failure with libvirt's last error, which belongs to the calling thread.
[[noreturn]] void ThrowLast(const char* call);

inline int Checked(const char* call, int result) {
  if (result < 0) ThrowLast(call);
  return result;
}

template <typename T>
T* Checked(const char* call, T* result) {
  if (result == nullptr) ThrowLast(call);
  return result;
}

// Calls one of libvirt's functions on this thread; a negative or null result is thrown as a Failure.
#define VIRT(function, ...) \
  ::vmferry::libvirt::Checked(#function, ::vmferry::libvirt::Lib().function(__VA_ARGS__))

}  // namespace vmferry::libvirt
