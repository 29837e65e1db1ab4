// How much of a resync may be on its way: as much as disks and network take while nobody else
// works, and so little beside clients that hardly one of a hundred of their operations notices.
//
// Operations that ran alone tell what is usual: the 99th percentile of their time, learnt one by
// one. One that ran beside a transfer and took kMuch times as long was held up by it. Each round
// looks at the share of all operations that were held up: above kHeldUpMax the window is halved,
// below half of it the window grows by a step; with no client at work it doubles. A window smaller
// than a chunk means rests between chunks. While clients work a short break in each second keeps
// the usual known, whatever the load becomes.
//
// No clock: every call brings the time. Thread safety: none.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace fs3::craq {

class ResyncPace {
 public:
  enum Kind : uint8_t { kUpdate = 0, kRead = 1 };
  // Kept by an operation of a client from its beginning to its end.
  struct Mark {
    int64_t began_ns = 0;
    uint64_t transfers = 0;
    bool beside = false;
  };

  // A resync begins with this, before there is anything to judge by: clients at work would notice
  // more, and without them it takes a second to grow to the most.
  static constexpr uint64_t kWindowFirst = 128u << 10;
  // What the flushes of a fast disk and the way there and back can have on them at a time.
  static constexpr uint64_t kWindowMax = 16u << 20;
  // A chunk of 1 MiB travels a 64th of the time: so few operations meet one that the bar is kept
  // even when it holds up each. kRestMaxNs sees to it that a resync ends, whatever the load.
  static constexpr uint64_t kWindowMin = 16u << 10;

  void begin_resync(int64_t now_ns) {
    window_ = kWindowFirst;
    round_ns_ = now_ns;
    break_ns_ = now_ns - kBreakNs;
    rest_until_ns_ = 0;
    on_way_ = 0;
  }

  Mark begin(int64_t now_ns) {
    worked_ns_ = now_ns;
    return {now_ns, transfers_, on_way_ > 0};
  }
  void end(int64_t now_ns, Kind kind, const Mark& mark) {
    worked_ns_ = now_ns;
    auto took_ns = static_cast<double>(now_ns - mark.began_ns);
    bool beside = mark.beside || mark.transfers != transfers_;
    bool held_up = beside && usual_ns_[kind] > 0 && took_ns > kMuch * usual_ns_[kind];
    held_up_ += ((held_up ? 1.0 : 0.0) - held_up_) / kMemory;
    if (!beside) learn(usual_ns_[kind], took_ns);
  }

  bool may_send(int64_t now_ns) {
    turn_round(now_ns);
    if (now_ns < rest_until_ns_ || in_break(now_ns)) return false;
    return on_way_ == 0 || on_way_ < window_;
  }
  void sent(int64_t now_ns, uint64_t bytes) {
    if (on_way_ == 0) burst_began_ns_ = now_ns;
    ++transfers_;
    on_way_ += bytes;
  }
  // Whatever became of it.
  void arrived(int64_t now_ns, uint64_t bytes) {
    on_way_ -= std::min(on_way_, bytes);
    if (on_way_ > 0 || window_ >= bytes || !working(now_ns)) return;
    double rests = static_cast<double>(bytes) / static_cast<double>(window_) - 1;
    auto rest_ns = static_cast<int64_t>(rests * static_cast<double>(now_ns - burst_began_ns_));
    rest_until_ns_ = now_ns + std::min(rest_ns, kRestMaxNs);
  }

  uint64_t window() const { return window_; }
  bool working(int64_t now_ns) const { return worked_ns_ > 0 && now_ns - worked_ns_ < kIdleNs; }

 private:
  static constexpr double kMuch = 1.6;  // below 2, the bar, by what learning is off
  static constexpr double kHeldUpMax = 0.01;
  static constexpr double kMemory = 256;  // operations: so many tell a share of 1 in 100
  static constexpr double kStep = 0.05;   // of the percentile, per operation above it
  static constexpr int64_t kRoundNs = 200'000'000;
  static constexpr int64_t kIdleNs = 1'000'000'000;
  static constexpr int64_t kBreakEveryNs = 1'000'000'000;
  static constexpr int64_t kBreakNs = 100'000'000;
  static constexpr int64_t kRestMaxNs = 1'000'000'000;
  static constexpr uint64_t kGrowMax = 128u << 10;  // per round; below it a quarter

  // Moves towards the value below which 99 of 100 lie.
  static void learn(double& percentile, double value) {
    if (percentile == 0)
      percentile = value;
    else if (value > percentile)
      percentile *= 1 + kStep;
    else
      percentile *= 1 - kStep / 99;
  }

  void turn_round(int64_t now_ns) {
    if (now_ns - round_ns_ < kRoundNs) return;
    round_ns_ = now_ns;
    if (!working(now_ns)) {
      window_ = std::min(kWindowMax, window_ * 2);
      held_up_ = 0;
    } else if (held_up_ > kHeldUpMax) {
      window_ = std::max(kWindowMin, window_ / 2);
      held_up_ /= 2;  // what it tells of the former window
    } else if (held_up_ < kHeldUpMax / 2) {
      window_ = std::min(kWindowMax, window_ + std::min(kGrowMax, window_ / 4));
    }
  }

  bool in_break(int64_t now_ns) {
    if (!working(now_ns)) return false;
    if (now_ns - break_ns_ >= kBreakEveryNs) break_ns_ = now_ns;
    return now_ns - break_ns_ < kBreakNs;
  }

  uint64_t window_ = kWindowFirst;
  uint64_t on_way_ = 0;  // bytes
  uint64_t transfers_ = 0;
  std::array<double, 2> usual_ns_{};  // 99th percentile of those alone; 0: none yet
  double held_up_ = 0;                // share of the last operations
  int64_t worked_ns_ = 0;
  int64_t round_ns_ = 0;
  int64_t break_ns_ = 0;
  int64_t rest_until_ns_ = 0;
  int64_t burst_began_ns_ = 0;
};

}  // namespace fs3::craq
