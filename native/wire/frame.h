// The frame header of proto/WIRE.md. Pure functions over bytes; golden vectors in
// proto/vectors/frames.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"

namespace fs3::wire {

constexpr uint32_t kMagic = 0x46335346;
constexpr size_t kHeaderSize = 64;
constexpr uint32_t kMaxBody = 4u << 20;
constexpr uint32_t kMaxPayload = (4u << 20) + (64u << 10);

enum class Kind : uint8_t { kRequest = 1, kReply = 2, kHello = 3 };
constexpr uint32_t kFlagNoReply = 1;

struct Header {
  Kind kind = Kind::kRequest;
  uint16_t method = 0;
  uint32_t flags = 0;
  uint32_t status = 0;
  uint64_t request_id = 0;
  uint32_t deadline_ms = 0;
  uint16_t capability_len = 0;
  uint32_t body_len = 0;
  uint32_t payload_len = 0;
  uint32_t body_crc = 0;
  uint32_t payload_crc = 0;
  uint32_t sink_len = 0;
};

// REQUIRES: a header that decode() accepts.
void encode(const Header& header, std::span<std::byte, kHeaderSize> out);
// The same for any header, for those who try wrong ones.
void encode_unchecked(const Header& header, std::span<std::byte, kHeaderSize> out);
// kBadRequest; the detail begins with the name of the first bad field.
Result<Header> decode(std::span<const std::byte, kHeaderSize> bytes);

// The last two checks of WIRE.md, once the bytes are there: `field` is "body_crc" or "payload_crc".
Status check_crc(std::string_view field, uint32_t said, uint32_t computed);

}  // namespace fs3::wire
