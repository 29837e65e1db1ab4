// From a chunk index to a chain: the permutation of proto/LAYOUT.md. Golden vectors in
// proto/vectors/layout.json.
//
// Thread safety: pick() and permutation() are pure; a PermutationCache belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <utility>
#include <vector>

namespace fs3::wire {

// The whole permutation of 0..n-1.
std::vector<uint32_t> permutation(uint64_t seed, uint32_t n);

// Entry k of it; O(n). REQUIRES: k < n.
uint32_t pick(uint64_t seed, uint32_t n, uint32_t k);

// Remembers the permutations used last, so a repeated pick is a lookup.
// Invariant: holds at most `capacity` permutations; the one used longest ago goes first.
class PermutationCache {
 public:
  explicit PermutationCache(size_t capacity = 256);
  // As wire::pick. REQUIRES: k < n.
  uint32_t pick(uint64_t seed, uint32_t n, uint32_t k);
  size_t size() const { return entries_.size(); }

 private:
  using Key = std::pair<uint64_t, uint32_t>;
  struct Entry {
    Key key;
    std::vector<uint32_t> permutation;
  };
  const size_t capacity_;
  std::list<Entry> entries_;  // used last first
  std::map<Key, std::list<Entry>::iterator> by_key_;
};

}  // namespace fs3::wire
