#include "fuse/decode.h"

#include <cerrno>
#include <cstring>
#include <string>

namespace fs3::fuse {
namespace {

constexpr size_t kExtensionUnit = 8;

Status bad(const char* field, uint64_t value, uint64_t limit) {
  return Status(
      kBadRequest, "fuse/decode",
      std::string(field) + ": " + std::to_string(value) + ", expected " + std::to_string(limit));
}

}  // namespace

Result<Decoded> decode_request(Bytes message) {
  Decoded request;
  if (message.size() < sizeof(fuse_in_header)) {
    return bad("header", message.size(), sizeof(fuse_in_header));
  }
  std::memcpy(&request.header, message.data(), sizeof request.header);
  if (request.header.len != message.size()) return bad("len", request.header.len, message.size());
  size_t extensions = request.header.total_extlen * kExtensionUnit;
  if (extensions > message.size() - sizeof(fuse_in_header)) {
    return bad("total_extlen", extensions, message.size() - sizeof(fuse_in_header));
  }
  Bytes rest = message.subspan(sizeof(fuse_in_header));
  rest = rest.first(rest.size() - extensions);
  size_t fixed = operation_header_size(request.header.opcode);
  request.known = fixed != kUnknownOperation;
  if (!request.known) {
    request.payload = rest;
    return request;
  }
  if (rest.size() < fixed) return bad("operation header", rest.size(), fixed);
  request.operation = rest.first(fixed);
  request.payload = rest.subspan(fixed);
  return request;
}

int take_string(Bytes& payload, std::string_view* text, size_t max) {
  if (payload.empty()) return EINVAL;
  const void* end = std::memchr(payload.data(), 0, payload.size());
  if (end == nullptr) return EINVAL;
  size_t length = static_cast<size_t>(static_cast<const std::byte*>(end) - payload.data());
  if (length == 0) return EINVAL;
  if (length > max) return ENAMETOOLONG;
  *text = {reinterpret_cast<const char*>(payload.data()), length};
  payload = payload.subspan(length + 1);
  return 0;
}

int take_name(Bytes& payload, std::string_view* name, size_t max) {
  Bytes rest = payload;
  std::string_view taken;
  if (int error = take_string(rest, &taken, max)) return error;
  if (taken.find('/') != std::string_view::npos) return EINVAL;
  *name = taken;
  payload = rest;
  return 0;
}

}  // namespace fs3::fuse
