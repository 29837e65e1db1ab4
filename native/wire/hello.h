// The hello body of proto/WIRE.md: who a peer claims to be.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fs3::wire {

constexpr size_t kHelloSize = 40;

struct Hello {
  std::array<uint8_t, 16> cluster_id{};   // zero = not known yet
  std::array<uint8_t, 16> instance_id{};  // client id or node incarnation
  uint8_t role = 1;                       // 1 client, 2 storage, 3 meta, 4 mgmtd
  uint32_t node_id = 0;
  bool operator==(const Hello&) const = default;
};

std::string encode_hello(const Hello& hello);
// kBadRequest; the detail begins with the name of the first bad field.
Result<Hello> decode_hello(std::string_view body);

}  // namespace fs3::wire
