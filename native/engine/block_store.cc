#include "engine/block_store.h"

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace fs3::engine {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr const char* kDirectory = "blocks";
constexpr uint8_t kSmallestChunkClass = 4;  // 64 KiB

// Room for RocksDB's logs, tables and compaction, about a thousandth of the data each.
uint64_t reserve_for(uint64_t total_bytes) {
  uint64_t wanted = std::clamp<uint64_t>(total_bytes / 64, 64 * kMiB, 2048 * kMiB);
  return std::min(wanted, total_bytes / 8);
}

}  // namespace

std::string block_file_name(uint8_t size_class) {
  return std::string(kDirectory) + "/" + std::to_string(class_bytes(size_class));
}

BlockStore::BlockStore(disk::Disk& disk, uint64_t capacity_bytes, Function<void(Status)> on_failure)
    : disk_(disk), capacity_bytes_(capacity_bytes), on_failure_(std::move(on_failure)) {}

Status BlockStore::open() {
  auto space = disk_.space();
  if (!space.ok()) return space.status();
  reserve_bytes_ = reserve_for(capacity_bytes_ != 0 ? capacity_bytes_ : space->total_bytes);
  Status status = disk_.make_directory(kDirectory);
  if (!status.ok()) return status;
  for (uint8_t c = 0; c < kClasses; ++c) {
    auto file = disk_.open(block_file_name(c));
    if (!file.ok()) return file.status();
    files_[c] = std::move(*file);
    auto size = files_[c]->size();
    if (!size.ok()) return size.status();
    file_bytes_[c] = *size;
  }
  return disk_.sync_directory(kDirectory);
}

Status BlockStore::check_inside(BlockAddress address) const {
  uint64_t end = (uint64_t{address.index} + 1) * class_bytes(address.size_class);
  if (end <= file_bytes_[address.size_class]) return Status();
  return Status(EBADMSG, "engine/open",
                block_file_name(address.size_class) + " is " +
                    std::to_string(file_bytes_[address.size_class]) + " bytes long, but block " +
                    std::to_string(address.index) + " of it is in use");
}

void BlockStore::finish_recovery() {
  for (uint8_t c = 0; c < kClasses; ++c) {
    auto holes = pool_->begin_holes(c, file_bytes_[c]);
    for (size_t i = 0; i < holes.size();) {  // neighbouring holes go in one call
      size_t end = i + 1;
      while (end < holes.size() && holes[end].index == holes[end - 1].index + 1) ++end;
      punch(holes[i], static_cast<uint32_t>(end - i), [] {});
      i = end;
    }
  }
}

bool BlockStore::room_for(uint64_t bytes) const {
  uint64_t present = pool_->counts().present_bytes;
  if (capacity_bytes_ != 0 && present + bytes + reserve_bytes_ > capacity_bytes_) return false;
  auto space = disk_.space();
  return space.ok() && space->available_bytes >= bytes + reserve_bytes_;
}

void BlockStore::allocate(uint8_t size_class, Function<void(Result<BlockRef>)> done) {
  FS3_CHECK(size_class < kClasses);
  Growth& growth = growth_[size_class];
  if (growth.waiters.empty()) {
    if (BlockRef block = pool_->take(size_class)) return done(std::move(block));
  }
  growth.waiters.push_back({std::move(done)});
  if (!growth.running) grow(size_class, false);
}

void BlockStore::grow(uint8_t size_class, bool reclaimed) {
  uint64_t bytes = group_bytes(size_class);
  growth_[size_class].running = true;
  if (!room_for(bytes)) {
    full(size_class, reclaimed, Status(ENOSPC, "engine/allocate", "the disk is full"));
    return;
  }
  GroupId group = pool_->begin_group(size_class);
  auto done = [this, group, reclaimed](Status status) { grown(group, reclaimed, status); };
  files_[size_class]->allocate(group.index * bytes, bytes, std::move(done));
}

// One more try after everything spare was given back.
void BlockStore::full(uint8_t size_class, bool reclaimed, Status status) {
  if (!reclaimed && reclaim(0, [this, size_class] { grow(size_class, true); })) return;
  serve(size_class, status);
}

void BlockStore::grown(GroupId group, bool reclaimed, const Status& status) {
  if (status.ok()) return settle(group);
  pool_->cancel_group(group);
  if (status.code() == ENOSPC) return full(group.size_class, reclaimed, status);
  on_failure_(status);
  serve(group.size_class, status);
}

// The length of the file is durable before a row can name a block of the group: a patch is durable
// without a flush of the block file.
void BlockStore::settle(GroupId group) {
  files_[group.size_class]->datasync([this, group](Status status) {
    if (status.ok()) {
      pool_->add_group(group);
    } else {
      pool_->cancel_group(group);
      on_failure_(status);
    }
    serve(group.size_class, status);
  });
}

void BlockStore::serve(uint8_t size_class, const Status& status) {
  Growth& growth = growth_[size_class];
  growth.running = false;
  auto waiters = std::move(growth.waiters);
  growth.waiters.clear();
  size_t next = 0;
  for (; next < waiters.size(); ++next) {
    BlockRef block = pool_->take(size_class);
    // A block too big is better than none.
    for (uint8_t c = size_class + 1; !block && !status.ok() && c < kClasses; ++c) {
      block = pool_->take(c);
    }
    if (!block) break;
    waiters[next].done(std::move(block));
  }
  if (!status.ok()) {
    for (; next < waiters.size(); ++next) waiters[next].done(status);
    return;
  }
  // Callbacks above may have asked for more; those that waited longest come first.
  growth.waiters.insert(growth.waiters.begin(), std::make_move_iterator(waiters.begin() + next),
                        std::make_move_iterator(waiters.end()));
  if (!growth.waiters.empty() && !growth.running) grow(size_class, false);
}

void BlockStore::trim() {
  reclaim(1, [] {});
}

bool BlockStore::reclaim(size_t keep, Function<void()> then) {
  struct Punches {
    size_t left = 0;
    Function<void()> then;
  };
  auto punches = std::make_shared<Punches>(Punches{0, std::move(then)});
  for (uint8_t c = 0; c < kClasses; ++c) {
    while (auto group = pool_->retire_group(c, keep)) {
      ++punches->left;
      punch(*group, 1, [punches] {
        if (--punches->left == 0) punches->then();
      });
    }
  }
  return punches->left > 0;
}

void BlockStore::punch(GroupId first, uint32_t count, Function<void()> then) {
  uint64_t bytes = group_bytes(first.size_class);
  auto done = [this, first, count, then = std::move(then)](Status status) mutable {
    for (uint32_t i = 0; i < count; ++i) {
      pool_->cancel_group({first.size_class, first.index + i});
    }
    if (!status.ok()) on_failure_(status);
    then();
  };
  files_[first.size_class]->punch(first.index * bytes, count * bytes, std::move(done));
}

uint64_t BlockStore::outside_bytes(uint64_t present_bytes) const {
  auto disk = disk_.space();
  uint64_t outside = disk.ok() ? disk->available_bytes : 0;
  outside -= std::min(outside, reserve_bytes_);
  if (capacity_bytes_ == 0) return outside;
  uint64_t limit = capacity_bytes_ - std::min(capacity_bytes_, reserve_bytes_);
  return std::min(outside, limit - std::min(limit, present_bytes));
}

// What a class has no free blocks for comes in whole groups; empty groups of classes that nobody
// asks for are given back when it gets tight.
bool BlockStore::has_room(const BlockCounts& blocks) const {
  uint64_t outside = outside_bytes(pool_->counts().present_bytes);
  uint64_t needed = 0;
  for (uint8_t c = 0; c < kClasses; ++c) {
    if (blocks[c] == 0) {
      outside += pool_->spare_bytes(c, false);
      continue;
    }
    uint64_t wanted = blocks[c] * class_bytes(c);
    uint64_t spare = pool_->spare_bytes(c, true);
    if (wanted <= spare) continue;
    uint64_t groups = (wanted - spare + group_bytes(c) - 1) / group_bytes(c);
    needed += groups * group_bytes(c);
  }
  return needed <= outside;
}

Space BlockStore::space() const {
  auto counts = pool_->counts();
  Space result;
  result.used_bytes = counts.used_bytes;
  // Free blocks of classes below the smallest chunk size serve little else until their group is
  // empty; they are not promised to anybody.
  uint64_t inside = 0;
  for (uint8_t c = 0; c < kClasses; ++c) inside += pool_->spare_bytes(c, c >= kSmallestChunkClass);
  uint64_t outside = outside_bytes(counts.present_bytes);
  result.free_bytes = inside + outside;
  result.capacity_bytes = counts.present_bytes - counts.bad_bytes + outside;
  return result;
}

}  // namespace fs3::engine
