// libvirt's default event loop: one in a process, registered before the first connection, on a thread of its own for
// as long as the process lives. Events, keepalive and the news that a connection is lost come from there.
#pragma once

#include <string>

#include "library.h"

namespace vmferry::libvirt {

// Once, by whoever loads libvirt. Returns "" or what went wrong.
std::string StartEventLoop(const Library& library);

}  // namespace vmferry::libvirt
