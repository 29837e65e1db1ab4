#include "engine/block_pool.h"

#include <algorithm>

#include "base/check.h"

namespace fs3::engine {

static_assert(group_blocks(0) == 256 && group_blocks(8) == 16 && group_blocks(14) == 1);

Block::~Block() {
  if (auto pool = pool_.lock()) pool->release(*this);
}

BlockPool::Group& BlockPool::group_of(BlockAddress address) {
  FS3_CHECK(address.size_class < kClasses);
  auto& groups = classes_[address.size_class].groups;
  uint32_t index = address.index / group_blocks(address.size_class);
  if (groups.size() <= index) groups.resize(index + 1);
  Group& group = groups[index];
  if (group.taken.empty()) {
    group.taken.resize(group_blocks(address.size_class));
    group.is_bad.resize(group_blocks(address.size_class));
  }
  return group;
}

// Brings the two sets in line with the state of one group.
void BlockPool::refresh(uint8_t size_class, uint32_t index) {
  Class& of = classes_[size_class];
  const Group& group = of.groups[index];
  bool present = group.state == GroupState::kPresent;
  FS3_CHECK(group.bad <= group.used && group.used <= group_blocks(size_class));
  if (present && group.used < group_blocks(size_class)) {
    of.with_free.insert(index);
  } else {
    of.with_free.erase(index);
  }
  if (present && group.used == 0) {
    of.empty.insert(index);
  } else {
    of.empty.erase(index);
  }
}

void BlockPool::mark_bad(BlockAddress address) {
  Group& group = group_of(address);
  uint32_t slot = address.index % group_blocks(address.size_class);
  group.state = GroupState::kPresent;
  if (!group.is_bad[slot]) {
    group.is_bad[slot] = true;
    ++group.bad;
    if (!group.taken[slot]) ++group.used;
    group.taken[slot] = true;
  }
  refresh(address.size_class, address.index / group_blocks(address.size_class));
}

BlockRef BlockPool::adopt(BlockAddress address) {
  Group& group = group_of(address);
  uint32_t slot = address.index % group_blocks(address.size_class);
  bool bad = group.is_bad[slot];
  if (group.taken[slot] && !bad) return nullptr;
  group.state = GroupState::kPresent;
  if (!bad) ++group.used;
  group.taken[slot] = true;
  refresh(address.size_class, address.index / group_blocks(address.size_class));
  auto block = std::make_shared<Block>(address, weak_from_this());
  block->bad = bad;
  return block;
}

BlockRef BlockPool::take(uint8_t size_class) {
  Class& of = classes_[size_class];
  if (of.with_free.empty()) return nullptr;
  uint32_t index = *of.with_free.begin();
  Group& group = of.groups[index];
  auto slot = std::find(group.taken.begin(), group.taken.end(), false) - group.taken.begin();
  FS3_CHECK(slot < group_blocks(size_class));
  group.taken[static_cast<size_t>(slot)] = true;
  ++group.used;
  refresh(size_class, index);
  BlockAddress address{size_class, index * group_blocks(size_class) + static_cast<uint32_t>(slot)};
  return std::make_shared<Block>(address, weak_from_this());
}

void BlockPool::mark_bad(Block& block) {
  block.bad = true;
  mark_bad(block.address());
}

void BlockPool::release(const Block& block) {
  if (block.bad) return;
  Group& group = group_of(block.address());
  uint32_t per_group = group_blocks(block.address().size_class);
  uint32_t slot = block.address().index % per_group;
  FS3_CHECK(group.taken[slot] && !group.is_bad[slot] && group.used > 0);
  group.taken[slot] = false;
  --group.used;
  refresh(block.address().size_class, block.address().index / per_group);
}

GroupId BlockPool::begin_group(uint8_t size_class) {
  auto& groups = classes_[size_class].groups;
  uint32_t index = 0;
  while (index < groups.size() && groups[index].state != GroupState::kHole) ++index;
  Group& group = group_of({size_class, index * group_blocks(size_class)});
  group.state = GroupState::kChanging;
  return {size_class, index};
}

void BlockPool::add_group(GroupId id) {
  Group& group = classes_[id.size_class].groups[id.index];
  FS3_CHECK(group.state == GroupState::kChanging && group.used == 0);
  group.state = GroupState::kPresent;
  refresh(id.size_class, id.index);
}

void BlockPool::cancel_group(GroupId id) {
  Group& group = classes_[id.size_class].groups[id.index];
  FS3_CHECK(group.state == GroupState::kChanging && group.used == 0);
  group.state = GroupState::kHole;
}

std::optional<GroupId> BlockPool::retire_group(uint8_t size_class, size_t keep) {
  Class& of = classes_[size_class];
  if (of.empty.size() <= keep) return std::nullopt;
  uint32_t index = *of.empty.rbegin();
  of.groups[index].state = GroupState::kChanging;
  refresh(size_class, index);
  return GroupId{size_class, index};
}

BlockPool::Counts BlockPool::counts() const {
  Counts counts;
  for (uint8_t c = 0; c < kClasses; ++c) {
    for (const Group& group : classes_[c].groups) {
      if (group.state != GroupState::kHole) counts.present_bytes += group_bytes(c);
      counts.used_bytes += (group.used - group.bad) * class_bytes(c);
      counts.bad_bytes += group.bad * class_bytes(c);
    }
  }
  return counts;
}

uint64_t BlockPool::spare_bytes(uint8_t size_class, bool partly) const {
  const Class& of = classes_[size_class];
  if (!partly) return of.empty.size() * group_bytes(size_class);
  uint64_t bytes = 0;
  for (uint32_t index : of.with_free) {
    bytes += (group_blocks(size_class) - of.groups[index].used) * class_bytes(size_class);
  }
  return bytes;
}

std::vector<GroupId> BlockPool::begin_holes(uint8_t size_class, uint64_t file_bytes) {
  std::vector<GroupId> result;
  uint64_t count = (file_bytes + group_bytes(size_class) - 1) / group_bytes(size_class);
  for (uint32_t i = 0; i < count; ++i) {
    Group& group = group_of({size_class, i * group_blocks(size_class)});
    if (group.state != GroupState::kHole) continue;
    group.state = GroupState::kChanging;
    result.push_back({size_class, i});
  }
  return result;
}

bool BlockPool::consistent() const {
  for (uint8_t c = 0; c < kClasses; ++c) {
    for (uint32_t i = 0; i < classes_[c].groups.size(); ++i) {
      const Group& group = classes_[c].groups[i];
      auto taken = std::count(group.taken.begin(), group.taken.end(), true);
      auto bad = std::count(group.is_bad.begin(), group.is_bad.end(), true);
      if (static_cast<uint32_t>(taken) != group.used || static_cast<uint32_t>(bad) != group.bad) {
        return false;
      }
      bool usable = group.state == GroupState::kPresent && group.used < group_blocks(c);
      if (classes_[c].with_free.contains(i) != usable) return false;
      if (group.state != GroupState::kPresent && group.used != 0) return false;
    }
  }
  return true;
}

}  // namespace fs3::engine
