// fs3._native.wire: frames, checksums, layouts and capabilities as plain functions, so that Python
// can compare its own with them and tools can speak the protocol.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "auth/capability.h"
#include "base/crc32c.h"
#include "python/errors.h"
#include "python/module.h"
#include "wire/frame.h"
#include "wire/hello.h"
#include "wire/layout.h"

namespace fs3::python {
namespace {

std::string_view view(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }
nb::bytes to_bytes(std::string_view text) { return nb::bytes(text.data(), text.size()); }

template <size_t size>
std::array<uint8_t, size> to_array(const nb::bytes& bytes, const char* name) {
  if (bytes.size() != size) {
    raise(Status(kBadRequest, "native/wire",
                 std::string(name) + ": must have " + std::to_string(size) + " bytes"));
  }
  std::array<uint8_t, size> array;
  std::memcpy(array.data(), bytes.c_str(), size);
  return array;
}

template <size_t size>
nb::bytes from_array(const std::array<uint8_t, size>& array) {
  return nb::bytes(array.data(), array.size());
}

nb::bytes encode_header(int kind, uint16_t method, uint32_t flags, uint32_t status,
                        uint64_t request_id, uint32_t deadline_ms, uint16_t capability_len,
                        uint32_t body_len, uint32_t payload_len, uint32_t body_crc,
                        uint32_t payload_crc, uint32_t sink_len) {
  wire::Header header{static_cast<wire::Kind>(kind),
                      method,
                      flags,
                      status,
                      request_id,
                      deadline_ms,
                      capability_len,
                      body_len,
                      payload_len,
                      body_crc,
                      payload_crc,
                      sink_len};
  std::array<std::byte, wire::kHeaderSize> bytes;
  wire::encode_unchecked(header, bytes);
  check(wire::decode(bytes).status());  // a caller in Python gets an exception, not an abort
  return nb::bytes(bytes.data(), bytes.size());
}

nb::dict decode_header(nb::bytes bytes) {
  if (bytes.size() != wire::kHeaderSize) {
    raise(Status(kBadRequest, "wire/decode", "length: a header has 64 bytes"));
  }
  const auto* data = reinterpret_cast<const std::byte*>(bytes.c_str());
  wire::Header h = take(wire::decode(std::span<const std::byte, wire::kHeaderSize>(data, 64)));
  nb::dict out;
  out["kind"] = static_cast<int>(h.kind);
  out["method"] = h.method;
  out["flags"] = h.flags;
  out["status"] = h.status;
  out["request_id"] = h.request_id;
  out["deadline_ms"] = h.deadline_ms;
  out["capability_len"] = h.capability_len;
  out["body_len"] = h.body_len;
  out["payload_len"] = h.payload_len;
  out["body_crc"] = h.body_crc;
  out["payload_crc"] = h.payload_crc;
  out["sink_len"] = h.sink_len;
  return out;
}

nb::bytes encode_hello(nb::bytes cluster_id, nb::bytes instance_id, uint8_t role,
                       uint32_t node_id) {
  wire::Hello hello{to_array<16>(cluster_id, "cluster_id"),
                    to_array<16>(instance_id, "instance_id"), role, node_id};
  return to_bytes(wire::encode_hello(hello));
}

nb::dict decode_hello(nb::bytes body) {
  wire::Hello hello = take(wire::decode_hello(view(body)));
  nb::dict out;
  out["cluster_id"] = from_array(hello.cluster_id);
  out["instance_id"] = from_array(hello.instance_id);
  out["role"] = hello.role;
  out["node_id"] = hello.node_id;
  return out;
}

nb::bytes mint(nb::bytes keyring, uint8_t rights, nb::bytes cluster, uint64_t inode,
               nb::bytes client, uint64_t issued_ms, uint64_t expiry_ms, nb::bytes session) {
  auth::Capability capability;
  capability.rights = rights;
  capability.cluster = to_array<4>(cluster, "cluster");
  capability.inode = inode;
  capability.client = to_array<16>(client, "client");
  capability.issued_ms = issued_ms;
  capability.expiry_ms = expiry_ms;
  capability.session = to_array<16>(session, "session");
  return to_bytes(take(auth::Keyring::parse(view(keyring)))->mint(capability));
}

nb::dict verify(nb::bytes keyring, nb::bytes token, uint64_t wall_ms) {
  auto keys = take(auth::Keyring::parse(view(keyring)));
  auth::Capability capability = take(keys->verify(view(token), wall_ms));
  nb::dict out;
  out["rights"] = capability.rights;
  out["key_id"] = capability.key_id;
  out["cluster"] = from_array(capability.cluster);
  out["inode"] = capability.inode;
  out["client"] = from_array(capability.client);
  out["issued_ms"] = capability.issued_ms;
  out["expiry_ms"] = capability.expiry_ms;
  out["session"] = from_array(capability.session);
  return out;
}

void check_capability(nb::bytes keyring, nb::bytes cluster_id, nb::bytes token, uint8_t rights,
                      uint64_t inode, nb::bytes client, uint64_t wall_ms) {
  to_array<16>(cluster_id, "cluster_id");
  auth::Verifier verifier(take(auth::Keyring::parse(view(keyring))), std::string(view(cluster_id)));
  check(verifier.check(view(token), rights, inode, view(client), wall_ms));
}

uint32_t pick(uint64_t seed, uint32_t n, uint32_t k) {
  if (k >= n) raise(Status(kBadRequest, "native/wire", "k: must be below n"));
  return wire::pick(seed, n, k);
}

void bind_wire(nb::module_& parent) {
  using namespace nb::literals;
  nb::module_ m = parent.def_submodule("wire", "The formats of proto/, natively.");
  m.def(
      "crc32c",
      [](nb::bytes data, uint32_t seed) { return crc32c(seed, data.c_str(), data.size()); },
      "data"_a, "seed"_a = 0);
  m.def("crc32c_combine", &crc32c_combine, "crc_a"_a, "crc_b"_a, "size_b"_a);
  m.def("encode_header", &encode_header, nb::kw_only(), "kind"_a, "method"_a = 0, "flags"_a = 0,
        "status"_a = 0, "request_id"_a = 0, "deadline_ms"_a = 0, "capability_len"_a = 0,
        "body_len"_a = 0, "payload_len"_a = 0, "body_crc"_a = 0, "payload_crc"_a = 0,
        "sink_len"_a = 0, "64 bytes. Raises BadRequest naming the first field that is wrong.");
  m.def("decode_header", &decode_header, "bytes"_a,
        "The fields. Raises BadRequest naming the first field that is wrong.");
  m.def("encode_hello", &encode_hello, "cluster_id"_a, "instance_id"_a, "role"_a, "node_id"_a);
  m.def("decode_hello", &decode_hello, "body"_a);
  m.def("pick", &pick, "seed"_a, "n"_a, "k"_a, "Entry k of the permutation of proto/LAYOUT.md.");
  m.def("permutation", &wire::permutation, "seed"_a, "n"_a);
  m.def("mint", &mint, "keyring"_a, "rights"_a, "cluster"_a, "inode"_a, "client"_a, "issued_ms"_a,
        "expiry_ms"_a, "session"_a, "A token of 80 bytes; `keyring` is Keyring.serialize().");
  m.def("verify", &verify, "keyring"_a, "token"_a, "wall_ms"_a);
  m.def("check_capability", &check_capability, "keyring"_a, "cluster_id"_a, "token"_a, "rights"_a,
        "inode"_a, "client"_a, "wall_ms"_a);
}

const Register r(bind_wire);

}  // namespace
}  // namespace fs3::python
