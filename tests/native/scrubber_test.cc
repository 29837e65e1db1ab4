// The scrubber on a simulated disk, with the time given by the test.
#include "storage/scrubber.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "engine_harness.h"

namespace fs3::storage {
namespace {

using test::EngineWorld;
using test::kTarget;
using test::pattern;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;
constexpr int64_t kHour = 3600 * kSecond;

class ScrubberTest : public ::testing::Test {
 protected:
  ScrubberTest() : medium_(7), world_(&medium_) { world_.start(); }
  ~ScrubberTest() override {
    world_.harness().on([&] { scrubber_.reset(); });
  }

  void make(ScrubOptions options) {
    world_.harness().on([&] {
      scrubber_ = std::make_unique<Scrubber>(
          world_.engine(), options, [this](TargetId target, ChunkId chunk, Status status) {
            EXPECT_EQ(target, kTarget);
            EXPECT_EQ(status.code(), static_cast<uint32_t>(kChecksumMismatch));
            found_.insert(chunk.index);
          });
    });
  }
  // Lets the time pass in ticks; after each, the reads that it began end.
  void pass(int64_t duration_ns, int64_t tick_ns = 50 * kMs) {
    for (int64_t until = now_ns_ + duration_ns; now_ns_ < until;) {
      now_ns_ += tick_ns;
      world_.harness().on([&] { scrubber_->tick(now_ns_); });
      settle();
    }
  }
  // Until the reads that the tick began, and those that follow them, ended.
  void settle() {
    while (world_.harness().on([&] { return scrubber_->reading(); })) std::this_thread::yield();
  }
  ScrubStatistics counts() {
    return world_.harness().on([&] { return scrubber_->statistics(); });
  }
  void write(uint64_t index, size_t size) {
    ASSERT_TRUE(world_.write({2, index}, 0, pattern(size, static_cast<uint32_t>(index))).ok());
  }

  disk::SimMedium medium_;
  EngineWorld world_;
  std::unique_ptr<Scrubber> scrubber_;
  std::set<uint64_t> found_;
  int64_t now_ns_ = kSecond;
};

TEST_F(ScrubberTest, ReadsEverythingOncePerPeriod) {
  for (uint64_t i = 0; i < 100; ++i) write(i, 10'000);
  make({10 * kSecond, 100u << 20});
  pass(5 * kSecond);
  auto first = counts();
  EXPECT_EQ(first.passes, 1u);
  EXPECT_EQ(first.chunks, 100u);
  EXPECT_EQ(first.bytes, 1'000'000u);
  EXPECT_GT(first.pass_ended_ns, 0);
  pass(4 * kSecond);
  EXPECT_EQ(counts().passes, 1u) << "not before the period is over";
  pass(6 * kSecond);
  EXPECT_EQ(counts().passes, 2u);
  EXPECT_EQ(counts().bytes, 2'000'000u);
  EXPECT_TRUE(found_.empty());
}

TEST_F(ScrubberTest, FindsEveryFlipAndGoesOn) {
  for (uint64_t i = 0; i < 20; ++i) write(i, 32'768);  // blocks of 32 KiB, in order
  medium_.corrupt("blocks/32768", 3 * 32'768 + 5000, 1);
  medium_.corrupt("blocks/32768", 11 * 32'768 + 32'767, 1);
  make({10 * kSecond, 100u << 20});
  pass(5 * kSecond);
  EXPECT_EQ(found_, (std::set<uint64_t>{3, 11}));
  EXPECT_EQ(counts().damaged, 2u);
  EXPECT_EQ(counts().chunks, 18u);
  pass(10 * kSecond);
  EXPECT_EQ(counts().passes, 2u);
  EXPECT_EQ(counts().damaged, 2u) << "what is known is not found again";
}

TEST_F(ScrubberTest, KeepsToItsBandwidth) {
  for (uint64_t i = 0; i < 8; ++i) write(i, 4 << 20);
  make({kSecond, 2u << 20});  // wants 256 MiB/s, may have 2
  pass(4 * kSecond);
  EXPECT_EQ(counts().passes, 0u);
  EXPECT_GE(counts().bytes, 6u << 20);
  EXPECT_LE(counts().bytes, (8u << 20) + (1u << 20)) << "at most one read beyond it";
}

TEST_F(ScrubberTest, TakesAnEighthOfALongPeriod) {
  for (uint64_t i = 0; i < 16; ++i) write(i, 4 << 20);  // 64 MiB
  make({256 * kSecond, 1u << 30});
  pass(16 * kSecond);
  EXPECT_EQ(counts().passes, 0u);
  EXPECT_GE(counts().bytes, 28u << 20);
  EXPECT_LE(counts().bytes, 34u << 20);
  pass(20 * kSecond);
  EXPECT_EQ(counts().passes, 1u);
}

TEST_F(ScrubberTest, APauseOfTheServerIsNoReasonForABurst) {
  for (uint64_t i = 0; i < 8; ++i) write(i, 4 << 20);
  make({kSecond, 4u << 20});
  pass(50 * kMs);
  pass(kHour, kHour);
  EXPECT_LE(counts().bytes, 2u << 20);
}

TEST_F(ScrubberTest, NeverWhenThePeriodIsZero) {
  write(0, 10'000);
  make({0, 1u << 20});
  pass(10 * kSecond);
  EXPECT_EQ(counts().bytes, 0u);
}

}  // namespace
}  // namespace fs3::storage
