#include "fuse/locks.h"

#include <algorithm>

namespace fs3::fuse {

void LockTable::note(uint64_t inode, uint64_t owner, uint64_t fh) {
  std::lock_guard lock(mutex_);
  owners_[inode].emplace(owner, fh);
}

bool LockTable::take_owner(uint64_t inode, uint64_t owner) {
  std::lock_guard lock(mutex_);
  auto found = owners_.find(inode);
  if (found == owners_.end()) return false;
  auto& pairs = found->second;
  auto first = pairs.lower_bound({owner, 0});
  auto last = first;
  while (last != pairs.end() && last->first == owner) ++last;
  bool any = first != last;
  pairs.erase(first, last);
  if (pairs.empty()) owners_.erase(found);
  return any;
}

std::vector<uint64_t> LockTable::take_handle(uint64_t inode, uint64_t fh) {
  std::vector<uint64_t> taken;
  std::lock_guard lock(mutex_);
  auto found = owners_.find(inode);
  if (found == owners_.end()) return taken;
  auto& pairs = found->second;
  for (auto pair = pairs.begin(); pair != pairs.end();) {
    if (pair->second != fh) {
      ++pair;
      continue;
    }
    taken.push_back(pair->first);
    pair = pairs.erase(pair);
  }
  if (pairs.empty()) owners_.erase(found);
  return taken;
}

uint64_t LockTable::new_ticket() {
  std::lock_guard lock(mutex_);
  return next_ticket_++;
}

bool LockTable::begin_wait(const LockWaitPtr& wait, size_t max) {
  std::lock_guard lock(mutex_);
  if (waits_.size() >= max) return false;
  auto early = std::find(interrupts_.begin(), interrupts_.end(), wait->unique);
  if (early != interrupts_.end()) {
    interrupts_.erase(early);
    wait->interrupted = true;
  }
  waits_.emplace(wait->unique, wait);
  return true;
}

void LockTable::end_wait(const LockWaitPtr& wait) {
  std::lock_guard lock(mutex_);
  waits_.erase(wait->unique);
}

LockWaitPtr LockTable::interrupt(uint64_t unique) {
  std::lock_guard lock(mutex_);
  auto found = waits_.find(unique);
  if (found != waits_.end()) {
    found->second->interrupted = true;
    return found->second;
  }
  interrupts_.push_back(unique);
  if (interrupts_.size() > kInterruptsKept) interrupts_.pop_front();
  return nullptr;
}

bool LockTable::interrupted(const LockWaitPtr& wait) {
  std::lock_guard lock(mutex_);
  return wait->interrupted;
}

}  // namespace fs3::fuse
