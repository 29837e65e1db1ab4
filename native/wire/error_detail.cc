#include "wire/error_detail.h"

#include "base/check.h"
#include "common.pb.h"

namespace fs3::wire {
namespace {

constexpr size_t kTextMax = 4096;

// Length of the UTF-8 sequence at the start of `text`; 0 when it is none.
size_t utf8_length(std::string_view text) {
  auto at = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; };
  auto tail = [&](size_t i) { return (at(i) & 0xc0) == 0x80; };
  uint8_t first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    uint32_t code = (first & 0x0fu) << 12 | (at(1) & 0x3fu) << 6;
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return tail(1) && tail(2) && code >= 0x800 && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    uint32_t code = (first & 0x07u) << 18 | (at(1) & 0x3fu) << 12;
    return tail(1) && tail(2) && tail(3) && code >= 0x10000 && code < 0x110000 ? 4 : 0;
  }
  return 0;
}

std::string printable(std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  while (!text.empty() && out.size() < kTextMax) {
    size_t length = utf8_length(text);
    auto byte = static_cast<uint8_t>(text[0]);
    if (length > 0 && byte >= 0x20 && byte != 0x7f) {
      out.append(text.substr(0, length));
    } else {
      length = 1;
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace

std::string encode_error(const Status& status) {
  FS3_CHECK(!status.ok());
  proto::ErrorDetail detail;
  detail.set_where(printable(status.where()));
  detail.set_detail(printable(status.detail()));
  return detail.SerializeAsString();
}

Status decode_error(uint32_t code, std::string_view body) {
  proto::ErrorDetail detail;
  if (!detail.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return Status(code, "", "the peer's error detail does not decode");
  }
  return Status(code, detail.where(), detail.detail());
}

}  // namespace fs3::wire
