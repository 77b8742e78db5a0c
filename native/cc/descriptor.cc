#include "descriptor.h"

#include <unistd.h>

namespace vmferry {

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace vmferry
