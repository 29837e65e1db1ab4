// What every fuzz target shares. A target is one file NAME_fuzz.cc that defines accepts() and
// kSealedFrom; fuzz_main.cc makes a libFuzzer entry of it, replay_main.cc a program that replays
// tests/fuzz/corpus/NAME without libFuzzer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"

namespace fs3::fuzz {

// Feeds one input. A broken promise (a round trip that differs, a bound that does not hold) aborts.
// True when the decoder took the whole input.
bool accepts(std::string_view input);

// From this byte on, golden inputs are covered by a checksum or a tag: a change of any byte and any
// cut must be refused. kNotSealed: changes may give another valid input.
extern const size_t kSealedFrom;
constexpr size_t kNotSealed = SIZE_MAX;

// Takes an input apart from the front; what is missing reads as zeros.
class Input {
 public:
  explicit Input(std::string_view bytes) : left_(bytes) {}

  template <typename T>
  T take() {
    T value{};
    std::string_view bytes = take_bytes(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  uint8_t byte() { return take<uint8_t>(); }
  std::string_view take_bytes(size_t size) {
    std::string_view taken = left_.substr(0, std::min(size, left_.size()));
    left_.remove_prefix(taken.size());
    return taken;
  }
  // A length byte or short, then so many bytes.
  std::string_view short_string() { return take_bytes(byte()); }
  std::string_view long_string() { return take_bytes(take<uint16_t>()); }
  std::string_view rest() { return take_bytes(left_.size()); }
  bool empty() const { return left_.empty(); }

 private:
  std::string_view left_;
};

}  // namespace fs3::fuzz
