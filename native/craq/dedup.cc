#include "craq/dedup.h"

#include <cstring>

namespace fs3::craq {

size_t DedupTable::Hash::operator()(const Channel& key) const noexcept {
  uint64_t high = 0, low = 0;
  std::memcpy(&high, key.client_id.data(), 8);
  std::memcpy(&low, key.client_id.data() + 8, 8);
  uint64_t z = (high ^ (low * 0x9e3779b97f4a7c15ull)) + key.channel * 0xbf58476d1ce4e5b9ull;
  return z ^ (z >> 29);
}

const LoadDedup* DedupTable::find(const UpdateIdentity& identity) const {
  auto it = index_.find(channel_of(identity));
  return it == index_.end() ? nullptr : &*it->second;
}

void DedupTable::put(const LoadDedup& row) {
  if (anonymous(row.identity)) return;
  auto [it, fresh] = index_.try_emplace(channel_of(row.identity));
  if (fresh) {
    it->second = rows_.insert(rows_.end(), row);
  } else {
    if (row.identity.sequence >= it->second->identity.sequence) *it->second = row;
    rows_.splice(rows_.end(), rows_, it->second);
  }
  if (index_.size() <= kMaxDedupRows) return;
  index_.erase(channel_of(rows_.front().identity));
  rows_.pop_front();
}

void DedupTable::clear() {
  rows_.clear();
  index_.clear();
}

std::vector<LoadDedup> DedupTable::rows() const { return {rows_.begin(), rows_.end()}; }

}  // namespace fs3::craq
