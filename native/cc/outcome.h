// What a native operation comes to. Nothing here knows of JavaScript.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>

namespace vmferry {

// The numbers are those of `codes` in src/errors.ts.
enum class Code : uint32_t { Ok = 0, Missing = 1, Bounds = 2, Corrupt = 3, System = 4, Closed = 5 };

// Message texts are literals, so that passing an outcome between threads allocates nothing.
struct Outcome {
  Code code = Code::Ok;
  std::array<double, 4> values{};
  const char* message = "";
  int system_errno = 0;

  static Outcome Done(double a = 0, double b = 0, double c = 0, double d = 0) {
    Outcome outcome;
    outcome.values = {a, b, c, d};
    return outcome;
  }

  static Outcome Failed(Code code, const char* message, int system_errno = 0) {
    Outcome outcome;
    outcome.code = code;
    outcome.message = message;
    outcome.system_errno = system_errno;
    return outcome;
  }
};

// Runs what may run out of memory: nothing may leave a thread's entry as an exception.
template <typename Task>
Outcome Attempt(Task& task) {
  try {
    return task();
  } catch (const std::bad_alloc&) {
    return Outcome::Failed(Code::System, "out of memory", ENOMEM);
  } catch (...) {
    return Outcome::Failed(Code::System, "unexpected exception in native code", EFAULT);
  }
}

struct Bytes {
  uint8_t* data = nullptr;
  size_t size = 0;
};

struct Words {
  uint32_t* data = nullptr;
  size_t size = 0;
};

struct Doubles {
  double* data = nullptr;
  size_t size = 0;
};

}  // namespace vmferry
