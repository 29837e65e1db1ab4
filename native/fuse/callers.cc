#include "fuse/callers.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>

#include "base/reactor.h"
#include "meta.pb.h"

namespace fs3::fuse {
namespace {

std::vector<uint32_t> groups_of(uint32_t pid) {
  std::string path = "/proc/" + std::to_string(pid) + "/status";
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};  // the process is gone: its groups cannot matter any more
  // The line stands in the first kilobyte; with the longest list it ends within eight.
  std::array<char, 8192> text;
  ssize_t got = read(fd, text.data(), text.size());
  close(fd);
  return got <= 0 ? std::vector<uint32_t>() : parse_groups({text.data(), static_cast<size_t>(got)});
}

std::string encode(uint32_t uid, uint32_t gid, uint32_t pid, const std::vector<uint32_t>& groups) {
  proto::meta::Caller caller;
  caller.set_uid(uid);
  caller.set_gid(gid);
  caller.set_pid(pid);
  for (uint32_t group : groups) caller.add_groups(group);
  return caller.SerializeAsString();
}

}  // namespace

std::vector<uint32_t> parse_groups(std::string_view status) {
  constexpr std::string_view kLabel = "\nGroups:";
  std::vector<uint32_t> groups;
  size_t at = status.find(kLabel);
  if (at == std::string_view::npos) return groups;
  const char* cursor = status.data() + at + kLabel.size();
  const char* end = status.data() + status.size();
  while (groups.size() < kGroupsMax) {
    while (cursor < end && (*cursor == ' ' || *cursor == '\t')) ++cursor;
    uint32_t group = 0;
    auto parsed = std::from_chars(cursor, end, group);
    if (parsed.ec != std::errc()) break;
    groups.push_back(group);
    cursor = parsed.ptr;
  }
  return groups;
}

std::string Callers::root() { return encode(0, 0, static_cast<uint32_t>(getpid()), {}); }

std::string Callers::of(const Request& request) {
  Key key{request.pid(), request.uid(), request.gid()};
  int64_t now = now_ns();
  {
    std::lock_guard lock(mutex_);
    auto found = entries_.find(key);
    if (found != entries_.end() && now - found->second.read_ns < kKeptNs) {
      return found->second.caller;
    }
  }
  // Root needs no groups, and the kernel's own requests (pid 0) have none.
  bool plain = request.uid() == 0 || request.pid() == 0;
  if (squash_root_ && request.uid() == 0) return encode(kNobody, kNobody, request.pid(), {});
  std::string caller = encode(request.uid(), request.gid(), request.pid(),
                              plain ? std::vector<uint32_t>() : groups_of(request.pid()));
  std::lock_guard lock(mutex_);
  if (entries_.size() >= kEntriesMax) entries_.clear();
  entries_[key] = {caller, now};
  return caller;
}

}  // namespace fs3::fuse
