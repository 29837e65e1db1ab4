#include "usrbio/api/descriptors.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace fs3::usrbio {

Descriptors& descriptors() {
  // Never destroyed: threads may still use it while the process ends.
  static auto* all = new Descriptors;
  return *all;
}

Descriptors::Entry* Descriptors::entry(int fd) const {
  if (fd < 0 || fd >= kPerBlock * kBlocks) return nullptr;
  Block* block = blocks_[fd / kPerBlock].load(std::memory_order_acquire);
  return block == nullptr ? nullptr : &block->entries[fd % kPerBlock];
}

// REQUIRES: mutex held.
Descriptors::Entry* Descriptors::entry_for(int fd) {
  if (fd < 0 || fd >= kPerBlock * kBlocks) return nullptr;
  auto& block = blocks_[fd / kPerBlock];
  if (block.load(std::memory_order_acquire) == nullptr) {
    block.store(new Block, std::memory_order_release);
  }
  return entry(fd);
}

int Descriptors::add(int fd, int* held) {
  FileReference reference{};
  if (fd < 0 || ioctl(fd, kIoctlRingFile, &reference) != 0) return EBADF;
  if (reference.version != kRingVersion) return EPROTO;
  std::lock_guard lock(mutex_);
  Entry* own = entry_for(fd);
  if (own == nullptr) return EBADF;
  if (own->held.load() >= 0) {
    if (own->file.load() == reference.file) return EINVAL;
    // The program has closed the file that it registered, and the number is another's.
    forget(*own);
  }
  int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (duplicate < 0) return errno;
  Entry* copy = entry_for(duplicate);
  if (copy == nullptr) {
    close(duplicate);
    return EMFILE;
  }
  forget(*copy);  // the same: a number that the program has closed without a word
  for (Entry* each : {own, copy}) {
    each->file.store(reference.file, std::memory_order_relaxed);
    each->key.store(reference.key, std::memory_order_relaxed);
    each->flags.store(reference.flags, std::memory_order_relaxed);
    each->owner.store(fd, std::memory_order_relaxed);
    each->held.store(duplicate, std::memory_order_release);
  }
  *held = duplicate;
  return 0;
}

// REQUIRES: mutex held.
void Descriptors::forget(Entry& own) {
  int duplicate = own.held.exchange(-1);
  if (duplicate < 0) return;
  if (Entry* copy = entry(duplicate)) copy->held.store(-1);
  close(duplicate);
}

void Descriptors::remove(int fd) {
  std::lock_guard lock(mutex_);
  Entry* named = entry(fd < 0 ? -fd : fd);
  if (named == nullptr || named->held.load() < 0) return;
  Entry* own = entry(named->owner.load());
  if (own != nullptr && own->held.load() == named->held.load()) return forget(*own);
  forget(*named);
}

bool Descriptors::find(int fd, FileReference* reference) const {
  const Entry* found = entry(fd < 0 ? -fd : fd);
  if (found == nullptr || found->held.load(std::memory_order_acquire) < 0) return false;
  reference->file = found->file.load(std::memory_order_relaxed);
  reference->key = found->key.load(std::memory_order_relaxed);
  reference->flags = found->flags.load(std::memory_order_relaxed);
  return true;
}

}  // namespace fs3::usrbio
