#include "wire/hello.h"

#include <cstring>

#include "wire/bytes.h"

namespace fs3::wire {
namespace {

constexpr size_t kAtInstance = 16;
constexpr size_t kAtRole = 32;
constexpr size_t kAtNode = 36;

Status bad(std::string_view detail) { return Status(kBadRequest, "wire/hello", detail); }

}  // namespace

std::string encode_hello(const Hello& hello) {
  std::string body(kHelloSize, '\0');
  auto* bytes = reinterpret_cast<std::byte*>(body.data());
  std::memcpy(bytes, hello.cluster_id.data(), 16);
  std::memcpy(bytes + kAtInstance, hello.instance_id.data(), 16);
  store<uint8_t>(bytes + kAtRole, hello.role);
  store<uint32_t>(bytes + kAtNode, hello.node_id);
  return body;
}

Result<Hello> decode_hello(std::string_view body) {
  if (body.size() != kHelloSize) {
    return bad("length: is " + std::to_string(body.size()) + ", must be 40");
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(body.data());
  Hello hello;
  std::memcpy(hello.cluster_id.data(), bytes, 16);
  std::memcpy(hello.instance_id.data(), bytes + kAtInstance, 16);
  hello.role = load<uint8_t>(bytes + kAtRole);
  if (hello.role < 1 || hello.role > 4) {
    return bad("role: is " + std::to_string(hello.role) + ", must be 1..4");
  }
  for (size_t at = kAtRole + 1; at < kAtNode; ++at) {
    if (bytes[at] != std::byte{0}) return bad("reserved: must be 0");
  }
  hello.node_id = load<uint32_t>(bytes + kAtNode);
  if (hello.role == 1 && hello.node_id != 0) {
    return bad("node id: is " + std::to_string(hello.node_id) + ", must be 0 for a client");
  }
  return hello;
}

}  // namespace fs3::wire
