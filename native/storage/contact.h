// For how long another server has not been heard, as far as this process can know. No clock: every
// call brings the time of now_ns().
//
// What this process slept through proves nothing about the other: tick() comes many times a second,
// and a gap between two of them is taken out of the silence.
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fs3::storage {

class Contact {
 public:
  // Silence begins now.
  explicit Contact(int64_t now_ns) : heard_ns_(now_ns), ran_ns_(now_ns) {}

  void heard(int64_t now_ns) { heard_ns_ = now_ns; }
  void tick(int64_t now_ns) {
    heard_ns_ = std::min(now_ns, heard_ns_ + slept_ns(now_ns));
    ran_ns_ = now_ns;
  }
  int64_t silent_ns(int64_t now_ns) const {
    return std::max<int64_t>(0, now_ns - slept_ns(now_ns) - heard_ns_);
  }

 private:
  static constexpr int64_t kGapNs = 250'000'000;  // several ticks: it did not run in between

  int64_t slept_ns(int64_t now_ns) const {
    int64_t gap_ns = now_ns - ran_ns_;
    return gap_ns > kGapNs ? gap_ns : 0;
  }

  int64_t heard_ns_;
  int64_t ran_ns_;
};

}  // namespace fs3::storage
