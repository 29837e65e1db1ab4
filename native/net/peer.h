// What two peers tell each other first: identities and hello frames.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"
#include "net/rpc.h"
#include "wire/frame.h"
#include "wire/hello.h"

namespace fs3::net {

// EINVAL unless the ids have 16 bytes (cluster id: or none).
Status check_identity(const Identity& self);

std::string hello_body(const Identity& self);
std::array<std::byte, wire::kHeaderSize> hello_header(const std::string& body);

// kBadRequest when the body is none, kWrongCluster when both sides know a cluster and differ.
Status check_hello(const Identity& self, std::string_view body);
// As above for a server, which accepts "not known yet" from clients only. Fills the claims in.
Status check_client_hello(const Identity& self, std::string_view body, Principal* principal);

}  // namespace fs3::net
