#include "net/peer.h"

#include <cerrno>
#include <cstring>

#include "base/crc32c.h"

namespace fs3::net {
namespace {

constexpr size_t kIdSize = 16;
using Id = std::array<uint8_t, kIdSize>;

Id to_id(const std::string& text) {
  Id id{};
  std::memcpy(id.data(), text.data(), std::min(text.size(), id.size()));
  return id;
}

Status compare_clusters(const Identity& self, const wire::Hello& hello) {
  Id own = to_id(self.cluster_id);
  if (own == Id{} || hello.cluster_id == Id{} || own == hello.cluster_id) return Status();
  return Status(kWrongCluster, "net/hello",
                "the peers belong to different clusters; check the address and the cluster file");
}

}  // namespace

Status check_identity(const Identity& self) {
  if (!self.cluster_id.empty() && self.cluster_id.size() != kIdSize) {
    return Status(EINVAL, "net/identity", "cluster_id must have 16 bytes, or none");
  }
  if (self.instance_id.size() != kIdSize) {
    return Status(EINVAL, "net/identity", "instance_id must have 16 bytes");
  }
  if (self.role < Role::kClient || self.role > Role::kMgmtd) {
    return Status(EINVAL, "net/identity", "role must be 1 to 4");
  }
  if (self.role == Role::kClient && self.node_id != 0) {
    return Status(EINVAL, "net/identity", "a client has node_id 0");
  }
  return Status();
}

std::string hello_body(const Identity& self) {
  wire::Hello hello;
  hello.cluster_id = to_id(self.cluster_id);
  hello.instance_id = to_id(self.instance_id);
  hello.role = static_cast<uint8_t>(self.role);
  hello.node_id = self.node_id;
  return wire::encode_hello(hello);
}

std::array<std::byte, wire::kHeaderSize> hello_header(const std::string& body) {
  wire::Header header;
  header.kind = wire::Kind::kHello;
  header.body_len = static_cast<uint32_t>(body.size());
  header.body_crc = crc32c(0, body.data(), body.size());
  std::array<std::byte, wire::kHeaderSize> bytes;
  wire::encode(header, bytes);
  return bytes;
}

Status check_hello(const Identity& self, std::string_view body) {
  auto hello = wire::decode_hello(body);
  return hello.ok() ? compare_clusters(self, *hello) : hello.status();
}

Status check_client_hello(const Identity& self, std::string_view body, Principal* principal) {
  auto hello = wire::decode_hello(body);
  if (!hello.ok()) return hello.status();
  principal->role = static_cast<Role>(hello->role);
  principal->node_id = hello->node_id;
  principal->instance_id.assign(reinterpret_cast<const char*>(hello->instance_id.data()), kIdSize);
  bool unknown = hello->cluster_id == Id{} && !self.cluster_id.empty();
  if (unknown && principal->role != Role::kClient) {
    return Status(kWrongCluster, "net/hello", "a server must say which cluster it belongs to");
  }
  return compare_clusters(self, *hello);
}

}  // namespace fs3::net
