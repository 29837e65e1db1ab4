#include "wire/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "vectors.h"

namespace fs3::wire {
namespace {

TEST(Layout, GoldenVectors) {
  Json vectors = read_vectors("layout");
  ASSERT_GE(vectors["permutations"].items.size(), 30u);
  for (const Json& row : vectors["permutations"].items) {
    uint64_t seed = row["seed"].number;
    auto n = static_cast<uint32_t>(row["n"].number);
    std::vector<uint32_t> expected;
    for (const Json& item : row["permutation"].items) {
      expected.push_back(static_cast<uint32_t>(item.number));
    }
    EXPECT_EQ(permutation(seed, n), expected) << seed << " " << n;
    PermutationCache cache;
    for (uint32_t k = 0; k < n; ++k) {
      ASSERT_EQ(pick(seed, n, k), expected[k]);
      ASSERT_EQ(cache.pick(seed, n, k), expected[k]);
    }
    EXPECT_EQ(cache.size(), 1u);
  }
}

TEST(Layout, IsAPermutationOfAnySize) {
  for (uint32_t n : {1u, 2u, 5u, 64u, 1000u}) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      auto entries = permutation(seed, n);
      std::sort(entries.begin(), entries.end());
      for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(entries[i], i);
    }
  }
}

TEST(Layout, NeighbouringSeedsSpreadEvenly) {
  constexpr uint32_t kChains = 10;
  constexpr uint64_t kFiles = 20'000;
  std::vector<uint64_t> first(kChains);
  for (uint64_t inode = 1; inode <= kFiles; ++inode) ++first[pick(inode, kChains, 0)];
  for (uint64_t count : first) {
    EXPECT_GT(count, kFiles / kChains * 9 / 10);
    EXPECT_LT(count, kFiles / kChains * 11 / 10);
  }
}

TEST(Layout, OutOfRangeIsAProgrammingError) {
  EXPECT_DEATH(pick(1, 3, 3), "check failed");
  EXPECT_DEATH(pick(1, 0, 0), "check failed");
  PermutationCache cache;
  EXPECT_DEATH(cache.pick(1, 3, 3), "check failed");
}

TEST(Layout, TheCacheForgetsWhatWasUsedLongestAgo) {
  PermutationCache cache(3);
  for (uint64_t seed : {1, 2, 3, 1, 4, 1, 5, 6}) {
    for (uint32_t k = 0; k < 7; ++k) ASSERT_EQ(cache.pick(seed, 7, k), pick(seed, 7, k));
    ASSERT_LE(cache.size(), 3u);
  }
  EXPECT_EQ(cache.pick(1, 8, 7), pick(1, 8, 7));  // the same seed over another table
}

}  // namespace
}  // namespace fs3::wire
