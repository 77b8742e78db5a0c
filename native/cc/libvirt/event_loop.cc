#include "event_loop.h"

#include <signal.h>

#include <chrono>
#include <system_error>
#include <thread>

namespace vmferry::libvirt {

namespace {

// A loop that fails once will most likely fail again: not at full speed.
constexpr std::chrono::milliseconds kPauseAfterFailure{100};

void Loop(int (*run)()) {
  for (;;) {
    if (run() < 0) std::this_thread::sleep_for(kPauseAfterFailure);
  }
}

}  // namespace

std::string StartEventLoop(const Library& library) {
  // A process has one, and it cannot be taken back.
  static bool registered = false;
  if (!registered && library.virEventRegisterDefaultImpl() != 0) return "its event loop does not start";
  registered = true;
  // Signals are Node's: the thread is born with all of them blocked.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::string failure;
  try {
    std::thread(Loop, library.virEventRunDefaultImpl).detach();
  } catch (const std::system_error&) {
    failure = "no thread for its event loop";
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return failure;
}

}  // namespace vmferry::libvirt
