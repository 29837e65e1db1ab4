#include "fuse/nodes.h"

#include <algorithm>
#include <utility>

#include "base/reactor.h"

namespace fs3::fuse {
namespace {

// Listings older than this carry no attributes, so older changes need not be remembered.
constexpr int64_t kChangeMattersNs = 10'000'000'000;
// relatime: a time of access is refreshed once a day.
constexpr int64_t kAtimeAgeNs = 86'400'000'000'000;
constexpr uint32_t kNoAtime = 0x80;  // meta.InodeFlag NO_ATIME

}  // namespace

void NodeTable::told(uint64_t node, uint64_t version, uint32_t mode, uint32_t flags,
                     int64_t until_ns, uint64_t lookups) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) {
    if (lookups == 0) return;  // never looked up: nobody will forget it
    found = part.nodes.emplace(node, Node()).first;
  }
  Node& known = found->second;
  known.lookups += lookups;
  if (version < known.version) return;
  known.version = version;
  known.mode = mode;
  known.flags = flags;
  known.until_ns = std::max(known.until_ns, until_ns);
}

void NodeTable::forget(uint64_t node, uint64_t lookups) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) return;
  Node& known = found->second;
  known.lookups -= std::min(known.lookups, lookups);
  if (known.lookups != 0) return;
  int64_t now = now_ns();
  if (known.changing != 0 || now - known.changed_ns < kChangeMattersNs) {
    dropped_ns_.store(now, std::memory_order_relaxed);
  }
  part.nodes.erase(found);
}

bool NodeTable::content_unchanged(uint64_t node, const ContentVersion& version) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) return false;
  bool same = found->second.content_known && found->second.content == version;
  found->second.content_known = true;
  found->second.content = version;
  return same;
}

void NodeTable::content_changed(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found != part.nodes.end()) found->second.content_known = false;
}

bool NodeTable::told_otherwise(uint64_t node, uint64_t version, int64_t now) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  return found != part.nodes.end() && found->second.version != version &&
         found->second.until_ns > now;
}

void NodeTable::begin_change(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) {
    dropped_ns_.store(now_ns(), std::memory_order_relaxed);
    return;
  }
  ++found->second.changing;
  found->second.changed_ns = now_ns();
}

void NodeTable::end_change(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) {
    dropped_ns_.store(now_ns(), std::memory_order_relaxed);
    return;
  }
  if (found->second.changing > 0) --found->second.changing;
  found->second.changed_ns = now_ns();
}

bool NodeTable::changed_since(uint64_t node, int64_t since_ns) {
  if (dropped_ns_.load(std::memory_order_relaxed) >= since_ns) return true;
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end()) return false;
  return found->second.changing != 0 || found->second.changed_ns >= since_ns;
}

NodeTable::Settled NodeTable::settled(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  return found == part.nodes.end() ? Settled() : found->second.settled;
}

void NodeTable::set_settled(uint64_t node, const Settled& settled) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end() || settled.version < found->second.settled.version) return;
  found->second.settled = settled;
}

void NodeTable::note_pages(uint64_t node) {
  Shard& own = shard(node);
  std::lock_guard lock(own.mutex);
  auto found = own.nodes.find(node);
  if (found != own.nodes.end()) found->second.pages = true;
}

bool NodeTable::take_pages(uint64_t node) {
  Shard& own = shard(node);
  std::lock_guard lock(own.mutex);
  auto found = own.nodes.find(node);
  return found != own.nodes.end() && std::exchange(found->second.pages, false);
}

bool NodeTable::take_belief(uint64_t node, int64_t now) {
  Shard& own = shard(node);
  std::lock_guard lock(own.mutex);
  auto found = own.nodes.find(node);
  return found != own.nodes.end() && std::exchange(found->second.until_ns, 0) > now;
}

uint32_t NodeTable::mode(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  return found == part.nodes.end() ? 0 : found->second.mode;
}

void NodeTable::set_mode(uint64_t node, uint32_t mode) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found != part.nodes.end()) found->second.mode = mode;
}

void NodeTable::times(uint64_t node, uint64_t version, int64_t atime_ns, int64_t changed_ns) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end() || version < found->second.times_version) return;
  found->second.times_version = version;
  found->second.atime_ns = atime_ns;
  found->second.written_ns = changed_ns;
}

bool NodeTable::due(const Node& known, int64_t now) {
  int64_t last = std::max(known.atime_ns, known.noted_ns);
  return !(known.flags & kNoAtime) && (last <= known.written_ns || now - last >= kAtimeAgeNs);
}

bool NodeTable::read_due(uint64_t node, int64_t now) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  return found != part.nodes.end() && due(found->second, now);
}

std::optional<int64_t> NodeTable::read_now(uint64_t node, int64_t* now, bool always) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end() || found->second.flags & kNoAtime) return std::nullopt;
  Node& known = found->second;
  if (due(known, *now)) {
    // Clocks differ: a read after a change is later than it.
    *now = std::max(*now, known.written_ns + 1);
  } else if (!always || *now <= std::max(known.atime_ns, known.noted_ns)) {
    return std::nullopt;
  }
  known.noted_ns = *now;
  return known.atime_ns;
}

int64_t NodeTable::read_noted(uint64_t node) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  return found == part.nodes.end() ? 0 : found->second.noted_ns;
}

void NodeTable::read_told(uint64_t node, int64_t noted_ns) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end() || found->second.noted_ns != noted_ns) return;
  found->second.atime_ns = std::max(found->second.atime_ns, noted_ns);
  found->second.noted_ns = 0;
}

std::optional<uint32_t> NodeTable::flags(uint64_t node, int64_t now) {
  Shard& part = shard(node);
  std::lock_guard lock(part.mutex);
  auto found = part.nodes.find(node);
  if (found == part.nodes.end() || found->second.until_ns <= now || found->second.changing != 0) {
    return std::nullopt;
  }
  return found->second.flags;
}

ChangeMark::ChangeMark(NodeTable& table, uint64_t first, uint64_t second)
    : table_(&table), first_(first), second_(second == first ? 0 : second) {
  if (first_ != 0) table.begin_change(first_);
  if (second_ != 0) table.begin_change(second_);
}

ChangeMark::ChangeMark(ChangeMark&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)), first_(other.first_), second_(other.second_) {}

void ChangeMark::end() {
  NodeTable* table = std::exchange(table_, nullptr);
  if (table == nullptr) return;
  if (first_ != 0) table->end_change(first_);
  if (second_ != 0) table->end_change(second_);
}

size_t NodeTable::size() {
  size_t total = 0;
  for (Shard& part : shards_) {
    std::lock_guard lock(part.mutex);
    total += part.nodes.size();
  }
  return total;
}

}  // namespace fs3::fuse
