// AccessTimes: when files were read through this mount, and who hears of it.
//
//   READ, READDIR, READLINK ── read() ──> NodeTable: is it due?  ── yes ──> the next batch
//   GETATTR, LOOKUP         ── overlay ── NodeTable: what the service has not heard of yet
//   batch ── one ACCESSED call for many inodes: when it is full, after kDelayNs, at the end
//
// By policy: relatime notes a read when the time of the last one is not newer than the last change,
// or a day old (as mount(8) says), strictatime every one, noatime none. What this mount shows is
// exact at once; others see it within the delay. A read that only the page cache serves is not
// seen; so a file whose read would be noted is opened without its old pages, and a strictatime
// mount opens every one for direct I/O.
//
// Losing a batch costs a time of access and nothing else, so a failure is not repeated.
//
// Thread safety: from any thread. The table and the client outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "base/reactor.h"
#include "client/client.h"
#include "fuse/nodes.h"

namespace fs3::fuse {

enum class AtimePolicy : uint8_t { kRelative, kNever, kAlways };

class AccessTimes {
 public:
  // `timers`: where the delay is waited for; null: a batch goes when it is full or at the end.
  AccessTimes(std::shared_ptr<client::Client> client, NodeTable& nodes, AtimePolicy policy,
              Reactor* timers);
  ~AccessTimes();

  void read(uint64_t inode);
  // Whether the next read would be noted.
  bool is_due(uint64_t inode);
  // Somebody sets the time by hand: what was noted before does not count any more.
  void set_by_hand(uint64_t inode);
  // The time to show: the service's, or a later one that it has not heard of.
  int64_t overlay(uint64_t inode, int64_t atime_ns) const;
  // Sends what waits; `done` when the service has heard of it, or will not.
  void flush(Function<void()> done);

  static constexpr int64_t kDelayNs = 5'000'000'000;
  static constexpr size_t kBatchMax = 128;  // fs3/limits.py ACCESS_TIMES_MAX

 private:
  // Shared with the timer and the replies, which may come when the owner is gone.
  struct State;
  const AtimePolicy policy_;
  NodeTable& nodes_;
  Reactor* const timers_;
  const std::shared_ptr<State> state_;
};

}  // namespace fs3::fuse
