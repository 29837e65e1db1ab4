// LeaseCache: names and attributes that this mount may believe, so that what nobody changed costs
// no call to the metadata service (fs3/meta/leases.py grants and recalls).
//
// Two levels. Here things are believed as long as their lease and the session; the kernel is told
// to believe them for less, and asks here again, because a kernel goes on believing when this
// process has stopped:
//   attributes   until the session ends, at most: a recall takes them back by a notification that
//                waits for nothing
//   names        kKernelNameNs at most: the notification waits for the lock of the directory, which
//                a process may hold whose own change waits for an acknowledgement elsewhere, where
//                the same may be the case. Such a circle ends by time: after that long the kernel
//                asks again by itself. In a directory where others change names the kernel is told
//                to ask each time, for kContendedNs, so that it does not come to that again.
//   new inodes   kKernelNameNs as well: the notification finds no inode in a kernel that is just
//                being told of it
//
// A reply that was granted before a recall may arrive after it: the recall's number is remembered
// with what it recalled, and a reply whose lease carries a lower one is not believed. The newest
// kRecallsKept are remembered; replies older than all of them are not believed either.
//
// Changes that this mount makes are not recalled: forget_*() at the begin and the end of each, and
// NodeTable::changed_since decides about replies that were asked for before.
//
// Thread safety: from any thread. All times are now_ns().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "client/client.h"
#include "meta.pb.h"

namespace fs3::fuse {

// What a reply grants.
struct Grant {
  uint64_t session = 0;
  uint64_t sequence = 0;
  int64_t ttl_ns = 0;
  int64_t asked_ns = 0;

  static Grant of(const proto::meta::Lease& lease, int64_t asked_ns) {
    return {lease.id(), lease.sequence(), int64_t{lease.ttl_ms()} * 1'000'000, asked_ns};
  }
  // The service shares its store with others: leases end by time, and nothing is recalled.
  bool by_time() const { return session == 0 && ttl_ns > 0; }
};

class LeaseCache {
 public:
  static constexpr int64_t kKernelNameNs = 1'000'000'000;
  static constexpr int64_t kContendedNs = 10'000'000'000;
  static constexpr size_t kRecallsKept = 4096;

  // `ttl_max_ns`: the kernel believes names no longer than that; 0: nothing at all.
  explicit LeaseCache(int64_t ttl_max_ns);

  // 0: nothing that was believed before counts any more.
  void set_session(uint64_t number, int64_t until_ns);
  // There has been a session: what was told outside of this cache may be recalled.
  bool recalls() const { return recalls_come_.load(std::memory_order_relaxed); }
  // Remembers and forgets; what the kernel believes is the caller's to take back, afterwards.
  void recall(uint64_t sequence, const std::vector<client::Recall>& recalls);

  // These keep what the grant allows, and return how long the kernel may believe it (0: not at
  // all).
  int64_t keep_attributes(const proto::meta::Attr& attr, const Grant& grant);
  // `inode` 0: there is no such name.
  int64_t keep_name(uint64_t parent, std::string_view name, uint64_t inode, const Grant& grant);

  struct Attributes {
    proto::meta::Attr attr;
    int64_t kernel_ns;
  };
  std::optional<Attributes> attributes(uint64_t inode);
  struct Name {
    uint64_t inode;
    int64_t kernel_ns;
  };
  std::optional<Name> name(uint64_t parent, std::string_view name);

  void forget_attributes(uint64_t inode);
  void forget_name(uint64_t parent, std::string_view name);

  // Answers that came from here.
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }

 private:
  template <typename T>
  struct Believed {
    T value;
    uint64_t session = 0;
    int64_t until_ns = 0;
  };
  // Dropping a full one is always right: a million names and as many inodes in all.
  static constexpr size_t kShards = 64;
  static constexpr size_t kShardMax = 16'384;
  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, Believed<proto::meta::Attr>> attributes;  // guarded by mutex
    std::unordered_map<std::string, Believed<uint64_t>> names;             // guarded by mutex
    // Directories where others change names, until when. Guarded by mutex.
    std::unordered_map<uint64_t, int64_t> contended;
  };
  Shard& shard(uint64_t inode) { return shards_[inode % kShards]; }
  Shard& shard_of_name(const std::string& key) {
    return shards_[std::hash<std::string>()(key) % kShards];
  }
  // How long it may be believed from now on; 0: not at all, or no longer.
  int64_t left(uint64_t session, int64_t until_ns);
  int64_t kernel_name_ns(uint64_t parent, int64_t left_ns);
  bool recalled_since(const Grant& grant, const std::string& key);

  const int64_t ttl_max_ns_;
  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> hits_{0};
  std::atomic<bool> recalls_come_{false};

  // Taken after a shard's.
  std::mutex mutex_;
  uint64_t session_ = 0;          // guarded by mutex_
  int64_t session_until_ns_ = 0;  // guarded by mutex_
  // Everything below: guarded by mutex_. By inode, or by parent and name.
  std::unordered_map<std::string, uint64_t> recalled_;
  std::deque<std::pair<std::string, uint64_t>> recalls_;
  uint64_t forgotten_ = 0;  // the newest recall that is not remembered any more
};

}  // namespace fs3::fuse
