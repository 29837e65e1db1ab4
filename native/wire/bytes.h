// Little-endian integers at any address.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>

namespace fs3::wire {

static_assert(std::endian::native == std::endian::little, "formats are little-endian");

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename T>
void store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

}  // namespace fs3::wire
