// Which blocks are used: pure bookkeeping, no I/O. Nothing of it is stored; it is rebuilt from the
// chunk metadata at open, so it can neither leak nor disagree with it.
//
// A class's file is cut into groups of blocks; a group has space on the disk (present) or is a
// hole. A block is used from take() until the last BlockRef to it is dropped, so whoever holds one
// - a version in memory, a read, a commit that is not durable yet - keeps it from being reused.
//
// Thread safety: none; the reactor's thread.
// Invariants: 1. used + free + bad blocks = blocks of present groups. 2. A block is handed out to
// one holder at a time. 3. A bad block is never handed out again.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "engine/records.h"

namespace fs3::engine {

class BlockPool;

// A used block. The last reference gives it back to the pool, if that still exists.
class Block {
 public:
  Block(BlockAddress address, std::weak_ptr<BlockPool> pool)
      : address_(address), pool_(std::move(pool)) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  BlockAddress address() const { return address_; }
  uint64_t bytes() const { return class_bytes(address_.size_class); }
  uint64_t file_offset() const { return address_.index * bytes(); }

  // Bytes below this belong to some version that may still be read or recovered; only bytes from
  // here on may be written in place. Never shrinks.
  uint64_t protected_length = 0;
  bool bad = false;  // its bytes did not match; not reused

  // A version that lies in the block, for as long as it lives: in the table, in the hands of a
  // read, or of a commit that is not durable yet.
  void add_holder(std::weak_ptr<const void> version) {
    std::erase_if(holders_, [](const auto& holder) { return holder.expired(); });
    holders_.push_back(std::move(version));
  }
  // Nobody but `version` is left.
  bool held_only_by(const void* version) const {
    return std::all_of(holders_.begin(), holders_.end(), [version](const auto& holder) {
      auto held = holder.lock();
      return held == nullptr || held.get() == version;
    });
  }

 private:
  const BlockAddress address_;
  const std::weak_ptr<BlockPool> pool_;
  std::vector<std::weak_ptr<const void>> holders_;
};
using BlockRef = std::shared_ptr<Block>;

// Small classes get groups of 1 MiB, big ones of 16 blocks or at most 16 MiB, but at least one
// block.
constexpr uint64_t group_bytes(uint8_t size_class) {
  uint64_t bytes = class_bytes(size_class) * 16;
  if (bytes < (1u << 20)) bytes = 1u << 20;
  if (bytes > (16u << 20)) bytes = 16u << 20;
  return bytes < class_bytes(size_class) ? class_bytes(size_class) : bytes;
}
constexpr uint32_t group_blocks(uint8_t size_class) {
  return static_cast<uint32_t>(group_bytes(size_class) / class_bytes(size_class));
}

struct GroupId {
  uint8_t size_class = 0;
  uint32_t index = 0;
};

class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  struct Counts {
    uint64_t present_bytes = 0;  // groups that hold disk space, also those that come or go
    uint64_t used_bytes = 0;
    uint64_t bad_bytes = 0;
  };

  // ---- recovery
  // The block is bad, whether some version uses it or not.
  void mark_bad(BlockAddress address);
  // A version uses the block. Null when another already does.
  BlockRef adopt(BlockAddress address);

  // ---- running
  // Null when no present group has a free block.
  BlockRef take(uint8_t size_class);
  void mark_bad(Block& block);

  // The lowest group that is a hole; it counts as present from now on, and is usable after
  // add_group, or a hole again after cancel_group.
  GroupId begin_group(uint8_t size_class);
  void add_group(GroupId group);
  void cancel_group(GroupId group);
  // A present group without used or bad blocks, beyond `keep` such groups of its class; it is not
  // usable from now on. The caller gives the space back and then calls cancel_group.
  std::optional<GroupId> retire_group(uint8_t size_class, size_t keep);

  Counts counts() const;
  // Free bytes in empty groups, or (partly) in all present groups.
  uint64_t spare_bytes(uint8_t size_class, bool partly) const;
  // The holes in a file of that length. They count as present and are not usable until
  // cancel_group.
  std::vector<GroupId> begin_holes(uint8_t size_class, uint64_t file_bytes);
  // Recounts everything from the bitmaps.
  bool consistent() const;

 private:
  friend class Block;
  enum class GroupState : uint8_t { kHole, kChanging, kPresent };
  struct Group {
    GroupState state = GroupState::kHole;
    uint32_t used = 0;  // also bad
    uint32_t bad = 0;
    std::vector<bool> taken;  // by block of the group; used or bad
    std::vector<bool> is_bad;
  };
  struct Class {
    std::vector<Group> groups;
    std::set<uint32_t> with_free;  // present groups that have a free block
    std::set<uint32_t> empty;      // present groups with nothing but free blocks
  };

  Group& group_of(BlockAddress address);
  void refresh(uint8_t size_class, uint32_t index);
  void release(const Block& block);

  std::array<Class, kClasses> classes_;
};

}  // namespace fs3::engine
