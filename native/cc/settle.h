// How a native operation that took its time tells JavaScript.
#pragma once

#include <napi.h>

#include "outcome.h"

namespace vmferry {

// Calls settle(code, value0, value1, value2, value3, message?, errno?) on the event loop. Plain N-API, because an
// environment that is going down refuses calls and must not be thrown at; what settle() throws stays pending.
void Settle(napi_env env, napi_value settle, const Outcome& outcome);

}  // namespace vmferry
