// INIT: what the kernel offers, what we take. A pure function, so that every kernel can be tested.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "fuse/decode.h"
#include "fuse/kernel.h"

namespace fs3::fuse {

struct Negotiation {
  uint32_t max_background = 256;
  uint32_t max_readahead = 4u << 20;
  bool offer_uring = false;  // allowed by the administrator and wanted
};

struct Negotiated {
  fuse_init_out out{};
  uint32_t kernel_minor = 0;
  bool uring = false;
  bool resends = false;  // requests that were read and not answered can be had again
};

// `arguments`: what follows fuse_in_header of INIT. Fails for protocols other than 7.31 and later
// (Linux 5.4): earlier ones lack requests of 1 MiB.
Result<Negotiated> negotiate_init(Bytes arguments, const Negotiation& wanted);

}  // namespace fs3::fuse
