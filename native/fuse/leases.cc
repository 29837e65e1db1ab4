#include "fuse/leases.h"

#include <algorithm>
#include <cstring>

#include "base/reactor.h"

namespace fs3::fuse {
namespace {

// Between the clock of this process and that of the kernel, which counts from when a process gets
// to read the answer.
constexpr int64_t kMarginNs = 250'000'000;

std::string key_of(uint64_t inode, uint64_t parent, std::string_view name) {
  std::string key(sizeof inode + sizeof parent, '\0');
  std::memcpy(key.data(), &inode, sizeof inode);
  std::memcpy(key.data() + sizeof inode, &parent, sizeof parent);
  return key.append(name);
}

}  // namespace

LeaseCache::LeaseCache(int64_t ttl_max_ns) : ttl_max_ns_(std::min(ttl_max_ns, kKernelNameNs)) {}

void LeaseCache::set_session(uint64_t number, int64_t until_ns) {
  std::lock_guard lock(mutex_);
  if (number != session_) {
    recalled_.clear();
    recalls_.clear();
    forgotten_ = 0;
  }
  if (number != 0) recalls_come_.store(true, std::memory_order_relaxed);
  session_ = number;
  session_until_ns_ = until_ns;
}

void LeaseCache::recall(uint64_t sequence, const std::vector<client::Recall>& recalls) {
  {
    std::lock_guard lock(mutex_);
    for (const client::Recall& recall : recalls) {
      std::string key = key_of(recall.inode, recall.parent, recall.name);
      recalled_[key] = sequence;
      recalls_.emplace_back(std::move(key), sequence);
    }
    while (recalls_.size() > kRecallsKept) {
      auto& [key, oldest] = recalls_.front();
      forgotten_ = oldest;
      auto found = recalled_.find(key);
      if (found != recalled_.end() && found->second == oldest) recalled_.erase(found);
      recalls_.pop_front();
    }
  }
  int64_t now = now_ns();
  for (const client::Recall& recall : recalls) {
    if (recall.inode != 0) {
      forget_attributes(recall.inode);
      continue;
    }
    forget_name(recall.parent, recall.name);
    Shard& part = shard(recall.parent);
    std::lock_guard lock(part.mutex);
    if (part.contended.size() >= kShardMax) part.contended.clear();
    part.contended[recall.parent] = now + kContendedNs;
  }
}

int64_t LeaseCache::left(uint64_t session, int64_t until_ns) {
  int64_t end_ns;
  {
    std::lock_guard lock(mutex_);
    if (session == 0 || session != session_) return 0;
    end_ns = std::min(until_ns, session_until_ns_);
  }
  return ttl_max_ns_ == 0 ? 0 : std::max<int64_t>(0, end_ns - now_ns() - kMarginNs);
}

bool LeaseCache::recalled_since(const Grant& grant, const std::string& key) {
  std::lock_guard lock(mutex_);
  if (grant.sequence < forgotten_) return true;
  auto found = recalled_.find(key);
  return found != recalled_.end() && found->second > grant.sequence;
}

int64_t LeaseCache::keep_attributes(const proto::meta::Attr& attr, const Grant& grant) {
  if (grant.by_time()) return std::min(grant.ttl_ns, ttl_max_ns_);
  Shard& part = shard(attr.inode());
  std::lock_guard lock(part.mutex);
  int64_t until_ns = grant.asked_ns + grant.ttl_ns;
  int64_t left_ns = left(grant.session, until_ns);
  if (left_ns == 0 || recalled_since(grant, key_of(attr.inode(), 0, {}))) return 0;
  if (part.attributes.size() >= kShardMax) part.attributes.clear();
  auto& kept = part.attributes[attr.inode()];
  kept.value = attr;
  kept.value.clear_layout();
  kept.session = grant.session;
  kept.until_ns = until_ns;
  return left_ns;
}

int64_t LeaseCache::keep_name(uint64_t parent, std::string_view name, uint64_t inode,
                              const Grant& grant) {
  if (grant.by_time()) return inode == 0 ? 0 : std::min(grant.ttl_ns, ttl_max_ns_);
  std::string key = key_of(0, parent, name);
  int64_t until_ns = grant.asked_ns + grant.ttl_ns;
  int64_t left_ns;
  {
    Shard& part = shard_of_name(key);
    std::lock_guard lock(part.mutex);
    left_ns = left(grant.session, until_ns);
    if (left_ns == 0 || recalled_since(grant, key)) return 0;
    if (part.names.size() >= kShardMax) part.names.clear();
    part.names[std::move(key)] = {inode, grant.session, until_ns};
  }
  return kernel_name_ns(parent, left_ns);
}

int64_t LeaseCache::kernel_name_ns(uint64_t parent, int64_t left_ns) {
  Shard& part = shard(parent);
  std::lock_guard lock(part.mutex);
  auto found = part.contended.find(parent);
  if (found != part.contended.end()) {
    if (found->second > now_ns()) return 0;
    part.contended.erase(found);
  }
  return std::min(left_ns, ttl_max_ns_);
}

std::optional<LeaseCache::Attributes> LeaseCache::attributes(uint64_t inode) {
  Shard& part = shard(inode);
  std::lock_guard lock(part.mutex);
  auto found = part.attributes.find(inode);
  if (found == part.attributes.end()) return std::nullopt;
  int64_t left_ns = left(found->second.session, found->second.until_ns);
  if (left_ns == 0) {
    part.attributes.erase(found);
    return std::nullopt;
  }
  hits_.fetch_add(1, std::memory_order_relaxed);
  return Attributes{found->second.value, left_ns};
}

std::optional<LeaseCache::Name> LeaseCache::name(uint64_t parent, std::string_view name) {
  std::string key = key_of(0, parent, name);
  uint64_t inode;
  int64_t left_ns;
  {
    Shard& part = shard_of_name(key);
    std::lock_guard lock(part.mutex);
    auto found = part.names.find(key);
    if (found == part.names.end()) return std::nullopt;
    inode = found->second.value;
    left_ns = left(found->second.session, found->second.until_ns);
    if (left_ns == 0) {
      part.names.erase(found);
      return std::nullopt;
    }
  }
  return Name{inode, kernel_name_ns(parent, left_ns)};
}

void LeaseCache::forget_attributes(uint64_t inode) {
  Shard& part = shard(inode);
  std::lock_guard lock(part.mutex);
  part.attributes.erase(inode);
}

void LeaseCache::forget_name(uint64_t parent, std::string_view name) {
  std::string key = key_of(0, parent, name);
  Shard& part = shard_of_name(key);
  std::lock_guard lock(part.mutex);
  part.names.erase(key);
}

}  // namespace fs3::fuse
