// The block files of a disk, one per size class, and the space in them.
//
// allocate() takes a free block or makes one: it reserves another group in the class's file. When
// the disk is full it first gives back groups that other classes do not use. A part of the disk
// (the reserve) is never given to blocks, so that metadata can always be written.
//
// Thread safety: the reactor's thread; sync() from any thread.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/function.h"
#include "disk/disk.h"
#include "engine/block_pool.h"
#include "engine/types.h"

namespace fs3::engine {

// Of a size class, in the disk's directory.
std::string block_file_name(uint8_t size_class);

class BlockStore {
 public:
  // `on_failure` is told of an I/O error other than ENOSPC.
  BlockStore(disk::Disk& disk, uint64_t capacity_bytes, Function<void(Status)> on_failure);

  // Opens the files; makes those that are missing.
  Status open();
  BlockPool& pool() { return *pool_; }
  // An address from the metadata must lie inside its file.
  Status check_inside(BlockAddress address) const;
  // After all blocks were adopted: gives back the space of everything else.
  void finish_recovery();

  // Calls back on the reactor's thread, perhaps at once. ENOSPC when there is no room.
  void allocate(uint8_t size_class, Function<void(Result<BlockRef>)> done);
  // Gives back groups that have become empty, but for one per class.
  void trim();

  disk::File& file(uint8_t size_class) { return *files_[size_class]; }
  Space space() const;
  bool has_room(const BlockCounts& blocks) const;

 private:
  struct Waiter {
    Function<void(Result<BlockRef>)> done;
  };
  struct Growth {
    std::vector<Waiter> waiters;
    bool running = false;
  };

  bool room_for(uint64_t bytes) const;
  // What groups that are not there yet may take.
  uint64_t outside_bytes(uint64_t present_bytes) const;
  void grow(uint8_t size_class, bool reclaimed);
  void grown(GroupId group, bool reclaimed, const Status& status);
  void settle(GroupId group);
  void full(uint8_t size_class, bool reclaimed, Status status);
  void serve(uint8_t size_class, const Status& status);
  // Punches empty groups but for `keep` per class; `then` runs when all of it is done. Returns
  // false when there was nothing to punch.
  bool reclaim(size_t keep, Function<void()> then);
  // REQUIRES: the groups are in change.
  void punch(GroupId first, uint32_t count, Function<void()> then);

  disk::Disk& disk_;
  const uint64_t capacity_bytes_;  // 0: what the file system has
  uint64_t reserve_bytes_ = 0;
  Function<void(Status)> on_failure_;
  std::shared_ptr<BlockPool> pool_ = std::make_shared<BlockPool>();
  std::array<std::unique_ptr<disk::File>, kClasses> files_;
  std::array<uint64_t, kClasses> file_bytes_{};  // at open
  std::array<Growth, kClasses> growth_;
};

}  // namespace fs3::engine
