// NodeTable: what this mount remembers of every inode that the kernel knows.
//
// Its purposes: (a) open() keeps the page cache while a file is unchanged; (b) open() notices that
// the kernel believes outdated attributes; (c) attributes that were fetched before a change made
// here are not passed on after it; (d) nor a length that was fetched before this mount settled a
// newer one; (e) what the kernel asks about an inode without extended attributes costs no call;
// (f) a read is noted when its time of access is due; (g) a write that goes around the kernel knows
// whether the kernel has something to forget.
//
// Thread safety: from any thread; sharded, no lock is held across calls out.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace fs3::fuse {

// What tells one state of a file's content from another.
struct ContentVersion {
  uint64_t data_version = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  bool operator==(const ContentVersion&) const = default;
};

class NodeTable {
 public:
  // Attributes with this inode version go to the kernel, which may believe them until then.
  // `flags`: of meta.InodeFlag. `lookups`: how many the kernel will give back with FORGET (1 for
  // entries, 0 for attributes).
  void told(uint64_t node, uint64_t version, uint32_t mode, uint32_t flags, int64_t until_ns,
            uint64_t lookups);
  void forget(uint64_t node, uint64_t lookups);

  // (a) True when the content is what it was at this mount's last open. Remembers the new state.
  bool content_unchanged(uint64_t node, const ContentVersion& version);
  // The kernel's pages are unknown from here on: the next open does not keep them.
  void content_changed(uint64_t node);

  // (b) The kernel holds attributes of another version, and has not let them expire.
  bool told_otherwise(uint64_t node, uint64_t version, int64_t now);

  // (c) A change of this object by this mount, from before its first effect to after its last.
  void begin_change(uint64_t node);
  void end_change(uint64_t node);
  // Something may have changed at or after `since_ns`.
  bool changed_since(uint64_t node, int64_t since_ns);

  // (d) The newest length that a settlement of this mount was answered with; version 0: none.
  struct Settled {
    uint64_t version = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
  };
  Settled settled(uint64_t node);
  void set_settled(uint64_t node, const Settled& settled);

  // (f) Times that the service told, with the version of the inode that they belong to.
  // `changed_ns`: the later one of mtime and ctime.
  void times(uint64_t node, uint64_t version, int64_t atime_ns, int64_t changed_ns);
  // A read at `*now` (wall clock). When its time is to be noted: the service's time of access so
  // far, and `*now` may have moved behind the last change. `always`: strictatime, else relatime.
  std::optional<int64_t> read_now(uint64_t node, int64_t* now, bool always);
  // What read_now() by relatime would say, without noting anything.
  bool read_due(uint64_t node, int64_t now);
  // What was noted and not yet told; 0: nothing.
  int64_t read_noted(uint64_t node);
  void read_told(uint64_t node, int64_t noted_ns);

  // (g) The kernel may hold pages of it.
  void note_pages(uint64_t node);
  // True when it may; from here on it does not, until noted again. The attributes likewise.
  bool take_pages(uint64_t node);
  bool take_belief(uint64_t node, int64_t now);

  // Mode bits as last told; 0 when unknown.
  uint32_t mode(uint64_t node);
  void set_mode(uint64_t node, uint32_t mode);
  // The flags, while the kernel may still believe the attributes they came with.
  std::optional<uint32_t> flags(uint64_t node, int64_t now);

  size_t size();

 private:
  struct Node {
    uint64_t lookups = 0;
    uint64_t version = 0;
    int64_t until_ns = 0;
    uint32_t mode = 0;
    uint32_t flags = 0;
    uint64_t times_version = 0;
    int64_t atime_ns = 0;
    int64_t written_ns = 0;
    int64_t noted_ns = 0;
    uint32_t changing = 0;
    int64_t changed_ns = 0;
    Settled settled;
    bool pages = false;
    bool content_known = false;
    ContentVersion content;
  };
  static bool due(const Node& known, int64_t now);
  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, Node> nodes;  // guarded by mutex
  };
  static constexpr size_t kShards = 64;
  Shard& shard(uint64_t node) { return shards_[node % kShards]; }

  std::array<Shard, kShards> shards_;
  // When a node was dropped whose change was recent: pages of a listing fetched before cannot be
  // judged any more.
  std::atomic<int64_t> dropped_ns_{0};
};

// A change in progress of up to two inodes; ended by end() or by dropping it.
class ChangeMark {
 public:
  ChangeMark() = default;
  // 0 names no inode.
  ChangeMark(NodeTable& table, uint64_t first, uint64_t second = 0);
  ChangeMark(ChangeMark&& other) noexcept;
  ChangeMark& operator=(ChangeMark&&) = delete;
  ~ChangeMark() { end(); }
  void end();

 private:
  NodeTable* table_ = nullptr;
  uint64_t first_ = 0;
  uint64_t second_ = 0;
};

}  // namespace fs3::fuse
