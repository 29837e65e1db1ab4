// The files that this process has registered, by descriptor.
//
// Each is held by a duplicate, so that the file stays open, and its reference good, when the
// program closes its own. Thread safety: from any thread; find() takes no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "usrbio/ring.h"

namespace fs3::usrbio {

class Descriptors {
 public:
  // 0 and the duplicate in `held`, or a positive errno: EBADF, EINVAL, EMFILE.
  int add(int fd, int* held);
  // By the descriptor, or by what add() gave, negated. Unknown ones are ignored.
  void remove(int fd);
  // False: not registered.
  bool find(int fd, FileReference* reference) const;

 private:
  static constexpr int kPerBlock = 1024;
  static constexpr int kBlocks = 1024;  // a million descriptors
  struct Entry {
    std::atomic<int> held{-1};  // -1: not registered; written last
    std::atomic<uint64_t> file{0};
    std::atomic<uint64_t> key{0};
    std::atomic<uint32_t> flags{0};
    std::atomic<int> owner{-1};  // of a duplicate: the descriptor that it was made of
  };
  struct Block {
    Entry entries[kPerBlock];
  };
  Entry* entry(int fd) const;
  Entry* entry_for(int fd);
  void forget(Entry& own);

  std::mutex mutex_;  // held to change
  std::atomic<Block*> blocks_[kBlocks] = {};
};

Descriptors& descriptors();

}  // namespace fs3::usrbio
