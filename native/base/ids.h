// Identifiers that several layers share. Plain values, ordered, hashable.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>

namespace fs3 {

using TargetId = uint64_t;
using ChainId = uint32_t;
using ChainVersion = uint32_t;
using ChunkVersion = uint64_t;

struct ChunkId {
  uint64_t inode = 0;
  uint64_t index = 0;
  auto operator<=>(const ChunkId&) const = default;
};

// Names one update for ever; the same triple again is a retry of it.
struct UpdateIdentity {
  std::array<uint8_t, 16> client_id{};
  uint32_t channel = 0;
  uint64_t sequence = 0;
  auto operator<=>(const UpdateIdentity&) const = default;
};

enum class UpdateKind : uint8_t { kNone = 0, kWrite = 1, kTruncate = 2, kRemove = 3, kReplace = 4 };

}  // namespace fs3

template <>
struct std::hash<fs3::ChunkId> {
  size_t operator()(const fs3::ChunkId& id) const noexcept {
    uint64_t z =
        id.inode * 0x9e3779b97f4a7c15ull ^ (id.index + 0x7f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
    return z ^ (z >> 31);
  }
};
