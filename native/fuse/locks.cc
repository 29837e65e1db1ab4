#include "fuse/locks.h"

#include <algorithm>

namespace fs3::fuse {

LockTable::LockTable(std::shared_ptr<Handover> handover) : handover_(std::move(handover)) {
  if (handover_ == nullptr) return;
  for (const Handover::LockOwner& held : handover_->inherited_locks()) {
    auto [at, added] = owners_[held.inode].try_emplace({held.owner, held.handle}, held.slot);
    // The process before was killed between a release and a new lock.
    if (!added) handover_->note_unlocked(held.slot);
  }
}

bool LockTable::note(uint64_t inode, uint64_t owner, uint64_t fh) {
  std::lock_guard lock(mutex_);
  auto [at, added] = owners_[inode].try_emplace({owner, fh}, Handover::kNone);
  if (!added || handover_ == nullptr) return true;
  at->second = handover_->note_lock(inode, owner, fh);
  if (at->second != Handover::kNone) return true;
  owners_[inode].erase(at);
  return false;
}

std::optional<LockTable::Ending> LockTable::take_owner(uint64_t inode, uint64_t owner) {
  std::lock_guard lock(mutex_);
  auto found = owners_.find(inode);
  if (found == owners_.end()) return std::nullopt;
  auto& holders = found->second;
  Ending ending{.inode = inode, .owner = owner};
  auto holder = holders.lower_bound({owner, 0});
  while (holder != holders.end() && holder->first.first == owner) {
    ending.records.push_back(holder->second);
    holder = holders.erase(holder);
  }
  if (holders.empty()) owners_.erase(found);
  if (ending.records.empty()) return std::nullopt;
  return ending;
}

std::vector<LockTable::Ending> LockTable::take_handle(uint64_t inode, uint64_t fh) {
  std::vector<Ending> taken;
  std::lock_guard lock(mutex_);
  auto found = owners_.find(inode);
  if (found == owners_.end()) return taken;
  auto& holders = found->second;
  for (auto holder = holders.begin(); holder != holders.end();) {
    auto [owner, handle] = holder->first;
    if (handle != fh) {
      ++holder;
      continue;
    }
    uint32_t record = holder->second;
    holder = holders.erase(holder);
    auto other = holders.lower_bound({owner, 0});
    if (other != holders.end() && other->first.first == owner) {
      // Another file has the address already and has locked: what is left ends with that one.
      if (handover_ != nullptr) handover_->note_unlocked(record);
      continue;
    }
    taken.push_back({.inode = inode, .owner = owner, .records = {record}});
  }
  if (holders.empty()) owners_.erase(found);
  return taken;
}

void LockTable::ended(const Ending& ending) {
  if (handover_ == nullptr) return;
  for (uint32_t record : ending.records) handover_->note_unlocked(record);
}

void LockTable::begin_release(uint64_t inode) {
  std::lock_guard lock(mutex_);
  ++gates_[inode].releases;
}

void LockTable::end_release(uint64_t inode) {
  std::vector<Function<void()>> waiting;
  {
    std::lock_guard lock(mutex_);
    auto gate = gates_.find(inode);
    if (gate == gates_.end() || --gate->second.releases > 0) return;
    waiting.swap(gate->second.waiting);
    gates_.erase(gate);
  }
  for (auto& go : waiting) go();
}

void LockTable::after_release(uint64_t inode, Function<void()> go) {
  {
    std::lock_guard lock(mutex_);
    auto gate = gates_.find(inode);
    if (gate != gates_.end()) {
      gate->second.waiting.push_back(std::move(go));
      return;
    }
  }
  go();
}

size_t LockTable::waiting() {
  std::lock_guard lock(mutex_);
  return waits_.size();
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
