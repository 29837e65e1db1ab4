#include "wire/frame.h"

#include <bit>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/crc32c.h"
#include "wire/bytes.h"

namespace fs3::wire {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kHeaderCrcOffset = 60;
constexpr uint16_t kCapabilityLength = 80;
constexpr const char* kWhere = "wire/decode";

// The field of proto/WIRE.md with its offset in the header.
enum Offset : size_t {
  kAtMagic = 0,
  kAtVersion = 4,
  kAtKind = 5,
  kAtMethod = 6,
  kAtFlags = 8,
  kAtStatus = 12,
  kAtRequestId = 16,
  kAtDeadline = 24,
  kAtCapabilityLen = 28,
  kAtReservedShort = 30,
  kAtBodyLen = 32,
  kAtPayloadLen = 36,
  kAtBodyCrc = 40,
  kAtPayloadCrc = 44,
  kAtSinkLen = 48,
  kAtReservedLong = 52,
};

Status bad(std::string_view field, uint64_t value, std::string_view rule) {
  std::string detail(field);
  detail += ": is " + std::to_string(value) + ", " + std::string(rule);
  return Status(kBadRequest, kWhere, detail);
}

Status check_preamble(const std::byte* bytes) {
  auto magic = load<uint32_t>(bytes + kAtMagic);
  if (magic != kMagic) return bad("magic", magic, "must be 1177768774 (FS3F)");
  auto version = load<uint8_t>(bytes + kAtVersion);
  if (version != kVersion) return bad("version", version, "must be 1");
  auto crc = load<uint32_t>(bytes + kHeaderCrcOffset);
  uint32_t expected = crc32c(0, bytes, kHeaderCrcOffset);
  if (crc != expected) return bad("header_crc", crc, "computed " + std::to_string(expected));
  auto kind = load<uint8_t>(bytes + kAtKind);
  if (kind < 1 || kind > 3) return bad("kind", kind, "must be 1, 2 or 3");
  return Status();
}

// Fields up to the lengths, in order of offset.
Status check_front(const Header& header, uint16_t reserved) {
  bool request = header.kind == Kind::kRequest;
  if (header.kind == Kind::kHello && header.method != 0) {
    return bad("method", header.method, "must be 0 in a hello");
  }
  if ((header.flags & ~(request ? kFlagNoReply : 0u)) != 0) {
    return bad("flags", header.flags, "has unknown bits");
  }
  if (header.kind != Kind::kReply && header.status != 0) {
    return bad("status", header.status, "must be 0 outside replies");
  }
  if (request && header.request_id == 0) return bad("request_id", 0, "must not be 0");
  if (header.kind == Kind::kHello && header.request_id != 0) {
    return bad("request_id", header.request_id, "must be 0 in a hello");
  }
  if (!request && header.deadline_ms != 0) {
    return bad("deadline_ms", header.deadline_ms, "must be 0 outside requests");
  }
  if (header.capability_len != 0 && !(request && header.capability_len == kCapabilityLength)) {
    return bad("capability_len", header.capability_len, "must be 0, or 80 in a request");
  }
  if (reserved != 0) return bad("reserved", reserved, "must be 0");
  return Status();
}

Status check_back(const Header& header, uint64_t reserved) {
  if (header.body_len > kMaxBody) return bad("body_len", header.body_len, "exceeds 4 MiB");
  if (header.payload_len > kMaxPayload) {
    return bad("payload_len", header.payload_len, "exceeds 4 MiB + 64 KiB");
  }
  bool payload_allowed = header.kind != Kind::kHello && header.status == 0;
  if (header.payload_len != 0 && !payload_allowed) {
    return bad("payload_len", header.payload_len, "must be 0 in a hello or failed reply");
  }
  if (header.capability_len == 0 && header.body_len == 0 && header.body_crc != 0) {
    return bad("body_crc", header.body_crc, "must be 0 without capability and body");
  }
  if (header.payload_len == 0 && header.payload_crc != 0) {
    return bad("payload_crc", header.payload_crc, "must be 0 without payload");
  }
  if (header.sink_len > (header.kind == Kind::kRequest ? kMaxPayload : 0)) {
    return bad("sink_len", header.sink_len, "exceeds 4 MiB + 64 KiB, or 0 outside requests");
  }
  if (reserved != 0) return bad("reserved", reserved, "must be 0");
  return Status();
}

}  // namespace

void encode_unchecked(const Header& header, std::span<std::byte, kHeaderSize> out) {
  std::byte* bytes = out.data();
  std::memset(bytes, 0, kHeaderSize);
  store<uint32_t>(bytes + kAtMagic, kMagic);
  store<uint8_t>(bytes + kAtVersion, kVersion);
  store<uint8_t>(bytes + kAtKind, static_cast<uint8_t>(header.kind));
  store<uint16_t>(bytes + kAtMethod, header.method);
  store<uint32_t>(bytes + kAtFlags, header.flags);
  store<uint32_t>(bytes + kAtStatus, header.status);
  store<uint64_t>(bytes + kAtRequestId, header.request_id);
  store<uint32_t>(bytes + kAtDeadline, header.deadline_ms);
  store<uint16_t>(bytes + kAtCapabilityLen, header.capability_len);
  store<uint32_t>(bytes + kAtBodyLen, header.body_len);
  store<uint32_t>(bytes + kAtPayloadLen, header.payload_len);
  store<uint32_t>(bytes + kAtBodyCrc, header.body_crc);
  store<uint32_t>(bytes + kAtPayloadCrc, header.payload_crc);
  store<uint32_t>(bytes + kAtSinkLen, header.sink_len);
  store<uint32_t>(bytes + kHeaderCrcOffset, crc32c(0, bytes, kHeaderCrcOffset));
}

void encode(const Header& header, std::span<std::byte, kHeaderSize> out) {
  // What we send, we would accept.
  FS3_CHECK(check_front(header, 0).ok() && check_back(header, 0).ok());
  encode_unchecked(header, out);
}

Result<Header> decode(std::span<const std::byte, kHeaderSize> in) {
  const std::byte* bytes = in.data();
  if (Status status = check_preamble(bytes); !status.ok()) return status;
  Header header;
  header.kind = static_cast<Kind>(load<uint8_t>(bytes + kAtKind));
  header.method = load<uint16_t>(bytes + kAtMethod);
  header.flags = load<uint32_t>(bytes + kAtFlags);
  header.status = load<uint32_t>(bytes + kAtStatus);
  header.request_id = load<uint64_t>(bytes + kAtRequestId);
  header.deadline_ms = load<uint32_t>(bytes + kAtDeadline);
  header.capability_len = load<uint16_t>(bytes + kAtCapabilityLen);
  header.body_len = load<uint32_t>(bytes + kAtBodyLen);
  header.payload_len = load<uint32_t>(bytes + kAtPayloadLen);
  header.body_crc = load<uint32_t>(bytes + kAtBodyCrc);
  header.payload_crc = load<uint32_t>(bytes + kAtPayloadCrc);
  header.sink_len = load<uint32_t>(bytes + kAtSinkLen);
  Status front = check_front(header, load<uint16_t>(bytes + kAtReservedShort));
  if (!front.ok()) return front;
  Status back = check_back(header, load<uint64_t>(bytes + kAtReservedLong));
  if (!back.ok()) return back;
  return header;
}

Status check_crc(std::string_view field, uint32_t said, uint32_t computed) {
  if (said == computed) return Status();
  return bad(field, said, "computed " + std::to_string(computed));
}

}  // namespace fs3::wire
