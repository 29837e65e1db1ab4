// The pace of a resync, in a world of virtual time: clients whose operations take longer beside a
// transfer, and a disk that takes a while for each MiB.
#include "craq/pace.h"

#include <gtest/gtest.h>

#include <queue>
#include <random>
#include <vector>

namespace fs3::craq {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;
constexpr uint64_t kChunk = 1u << 20;

struct Load {
  double per_s = 200;          // operations of clients; 0: none
  double usual_ms = 2;         // what one takes alone, at the least; a tail comes on top
  double per_mib_ms = 0;       // and how much longer it takes beside each MiB that is on its way
  int64_t chunk_ns = 4 * kMs;  // a chunk takes that long; several share the disk
};

class World {
 public:
  World() { pace.begin_resync(now_ns); }

  // Time in steps of a millisecond.
  void run(int64_t duration_ns, const Load& load) {
    for (int64_t until_ns = now_ns + duration_ns; now_ns < until_ns; now_ns += kMs) {
      while (!ends_.empty() && ends_.top().at_ns <= now_ns) {
        pace.end(now_ns, ResyncPace::kUpdate, ends_.top().mark);
        ends_.pop();
      }
      if (!on_way_.empty() && on_way_.front() <= now_ns) {
        on_way_.pop();
        pace.arrived(now_ns, kChunk);
        moved += kChunk;
      }
      if (std::uniform_real_distribution<>()(dice_) < load.per_s / 1000) work(load);
      while (syncing && pace.may_send(now_ns)) {
        int64_t after_ns = on_way_.empty() ? now_ns : on_way_.back();
        on_way_.push(after_ns + load.chunk_ns);
        pace.sent(now_ns, kChunk);
      }
    }
  }

  // Share of the operations since the last call that took longer than that.
  double slower_than(double ms) {
    size_t slow = 0;
    for (double took : took_ms_) slow += took > ms;
    double share = took_ms_.empty() ? 0 : static_cast<double>(slow) / took_ms_.size();
    took_ms_.clear();
    return share;
  }
  double p99_ms() {
    std::sort(took_ms_.begin(), took_ms_.end());
    double value = took_ms_.at(took_ms_.size() * 99 / 100);
    took_ms_.clear();
    return value;
  }

  ResyncPace pace;
  int64_t now_ns = 1000 * kSecond;
  uint64_t moved = 0;
  bool syncing = true;

 private:
  struct End {
    int64_t at_ns;
    ResyncPace::Mark mark;
    bool operator>(const End& other) const { return at_ns > other.at_ns; }
  };

  void work(const Load& load) {
    double tail = std::exponential_distribution<>(1 / load.usual_ms)(dice_);
    double beside = load.per_mib_ms * static_cast<double>(on_way_.size());
    double ms = load.usual_ms + tail + beside;
    took_ms_.push_back(ms);
    ends_.push({now_ns + static_cast<int64_t>(ms * kMs), pace.begin(now_ns)});
  }

  std::mt19937 dice_{7};
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
  std::queue<int64_t> on_way_;  // when each chunk arrives
  std::vector<double> took_ms_;
};

TEST(ResyncPace, TakesEverythingWhenNobodyWorks) {
  World w;
  w.run(2 * kSecond, {.per_s = 0});
  EXPECT_EQ(w.pace.window(), ResyncPace::kWindowMax);
  w.moved = 0;
  w.run(10 * kSecond, {.per_s = 0});
  EXPECT_GE(w.moved, 9 * kSecond / (4 * kMs) * kChunk) << "the disk is never idle";
}

TEST(ResyncPace, GrowsBesideClientsThatDoNotNotice) {
  World w;
  w.run(60 * kSecond, {});
  EXPECT_EQ(w.pace.window(), ResyncPace::kWindowMax);
  w.moved = 0;
  w.run(10 * kSecond, {});
  EXPECT_GE(w.moved, 8 * kSecond / (4 * kMs) * kChunk);
}

TEST(ResyncPace, HardlyAnOperationOfClientsIsHeldUp) {
  for (double per_mib_ms : {5.0, 10.0, 20.0}) {
    World w;
    w.syncing = false;
    w.run(20 * kSecond, {});
    double usual_ms = w.p99_ms();
    w.syncing = true;
    w.run(20 * kSecond, {.per_mib_ms = per_mib_ms});
    w.slower_than(0);
    w.moved = 0;
    w.run(60 * kSecond, {.per_mib_ms = per_mib_ms});
    EXPECT_LE(w.slower_than(2 * usual_ms), 0.02) << per_mib_ms;
    EXPECT_GE(w.moved, 60 * kChunk) << "and the resync goes on";
  }
}

TEST(ResyncPace, AloneAgainItTakesEverything) {
  World w;
  w.run(30 * kSecond, {.per_mib_ms = 50});
  EXPECT_LE(w.pace.window(), kChunk);
  w.run(4 * kSecond, {.per_s = 0});
  EXPECT_EQ(w.pace.window(), ResyncPace::kWindowMax);
}

TEST(ResyncPace, BelowOneChunkItRestsBetweenChunks) {
  World w;
  w.run(20 * kSecond, {.per_mib_ms = 200});
  ASSERT_LE(w.pace.window(), 4 * ResyncPace::kWindowMin);
  w.moved = 0;
  w.run(10 * kSecond, {.per_mib_ms = 200});
  uint64_t chunks = w.moved / kChunk;
  EXPECT_LE(chunks, 10 * kSecond / (4 * kMs) / 12) << "a chunk travels a small part of the time";
  EXPECT_GE(chunks, 10 * kSecond / (4 * kMs) / 128);
}

TEST(ResyncPace, ALoadThatBecameSlowerByItselfIsNotBlamedForLong) {
  World w;
  w.run(20 * kSecond, {});
  w.run(60 * kSecond, {.usual_ms = 12});
  EXPECT_GE(w.pace.window(), 2 * kChunk);
}

}  // namespace
}  // namespace fs3::craq
