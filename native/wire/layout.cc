#include "wire/layout.h"

#include <numeric>

#include "base/check.h"

namespace fs3::wire {
namespace {

uint64_t splitmix64(uint64_t* state) {
  *state += 0x9e3779b97f4a7c15;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<uint32_t> permutation(uint64_t seed, uint32_t n) {
  std::vector<uint32_t> entries(n);
  std::iota(entries.begin(), entries.end(), 0u);
  uint64_t state = seed;
  for (uint32_t i = n; i-- > 1;) {
    auto j = static_cast<uint32_t>(splitmix64(&state) % (uint64_t{i} + 1));
    std::swap(entries[i], entries[j]);
  }
  return entries;
}

uint32_t pick(uint64_t seed, uint32_t n, uint32_t k) {
  FS3_CHECK(k < n);
  return permutation(seed, n)[k];
}

PermutationCache::PermutationCache(size_t capacity) : capacity_(capacity) {
  FS3_CHECK(capacity > 0);
}

uint32_t PermutationCache::pick(uint64_t seed, uint32_t n, uint32_t k) {
  FS3_CHECK(k < n);
  Key key{seed, n};
  auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return entries_.front().permutation[k];
  }
  if (entries_.size() == capacity_) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({key, permutation(seed, n)});
  by_key_.emplace(key, entries_.begin());
  return entries_.front().permutation[k];
}

}  // namespace fs3::wire
