// One whole frame of proto/WIRE.md in memory: header, capability, body, payload; and what the
// bodies of hellos and failed replies say.
#include <array>

#include "base/crc32c.h"
#include "fuzz.h"
#include "wire/error_detail.h"
#include "wire/frame.h"
#include "wire/hello.h"

namespace fs3::fuzz {
namespace {

using wire::kHeaderSize;
constexpr size_t kCrcAt = 60;

std::array<std::byte, kHeaderSize> header_bytes(std::string_view input) {
  std::array<std::byte, kHeaderSize> bytes;
  std::memcpy(bytes.data(), input.data(), bytes.size());
  return bytes;
}

// Each accepted header has one encoding.
void check_round_trip(const wire::Header& header, const std::array<std::byte, kHeaderSize>& bytes) {
  std::array<std::byte, kHeaderSize> again;
  wire::encode(header, again);
  FS3_CHECK(again == bytes);
  FS3_CHECK(header.body_len <= wire::kMaxBody && header.payload_len <= wire::kMaxPayload);
}

void check_bodies(std::string_view body) {
  auto hello = wire::decode_hello(body);
  if (hello.ok()) FS3_CHECK(wire::encode_hello(*hello) == body);
  // The detail of a peer, handed on to ours: twice through the codec it is what it was once.
  Status once = wire::decode_error(kBusy, body);
  FS3_CHECK(once.code() == kBusy);
  Status twice = wire::decode_error(kBusy, wire::encode_error(once));
  FS3_CHECK(wire::encode_error(twice) == wire::encode_error(once));
}

// Random bytes do not have a right CRC: the fields behind it are reached by putting one there.
void try_with_right_crc(std::array<std::byte, kHeaderSize> bytes) {
  uint32_t crc = crc32c(0, bytes.data(), kCrcAt);
  std::memcpy(bytes.data() + kCrcAt, &crc, sizeof crc);
  auto header = wire::decode(bytes);
  if (header.ok()) check_round_trip(*header, bytes);
}

bool crc_holds(uint32_t said, std::string_view bytes) {
  return wire::check_crc("body_crc", said, crc32c(0, bytes.data(), bytes.size())).ok();
}

}  // namespace

const size_t kSealedFrom = 0;

bool accepts(std::string_view input) {
  check_bodies(input);
  if (input.size() < kHeaderSize) return false;
  auto bytes = header_bytes(input);
  try_with_right_crc(bytes);
  auto header = wire::decode(bytes);
  if (!header.ok()) return false;
  check_round_trip(*header, bytes);
  std::string_view rest = input.substr(kHeaderSize);
  size_t head = size_t{header->capability_len} + header->body_len;
  if (rest.size() != head + header->payload_len) return false;
  check_bodies(rest.substr(header->capability_len, header->body_len));
  return crc_holds(header->body_crc, rest.substr(0, head)) &&
         crc_holds(header->payload_crc, rest.substr(head));
}

}  // namespace fs3::fuzz
