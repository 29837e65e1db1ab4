// Callers: who makes a request, as the metadata service wants to know it.
//
// The kernel tells uid, gid and pid; supplementary groups come from /proc/PID/status. They are read
// once per process and kept for a second: long enough for a burst of calls, short enough that a
// reused pid does not matter.
//
// Thread safety: from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "fuse/request.h"

namespace fs3::fuse {

constexpr size_t kGroupsMax = 32;     // fs3/limits.py GROUPS_MAX
constexpr uint32_t kNobody = 65'534;  // uid and gid, as the metadata service has it

// The numbers behind "Groups:" in the text of /proc/PID/status, at most kGroupsMax. Empty when the
// line is missing.
std::vector<uint32_t> parse_groups(std::string_view status);

class Callers {
 public:
  // `squash_root`: the root of this host is nobody.
  explicit Callers(bool squash_root = false) : squash_root_(squash_root) {}
  // A serialized fs3.proto.meta.Caller.
  std::string of(const Request& request);
  // The owner of the file system: for work that no user asked for.
  static std::string root();

 private:
  static constexpr int64_t kKeptNs = 1'000'000'000;
  static constexpr size_t kEntriesMax = 4096;
  using Key = std::tuple<uint32_t, uint32_t, uint32_t>;  // pid, uid, gid
  struct Entry {
    std::string caller;
    int64_t read_ns;
  };

  const bool squash_root_;
  std::mutex mutex_;
  std::map<Key, Entry> entries_;  // guarded by mutex_
};

}  // namespace fs3::fuse
