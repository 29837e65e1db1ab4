// Rare events that a person should see (a denied capability, bytes that do not fit their checksum,
// a failed disk). They wait here for the control half, which logs them: the data path never waits
// for a logger. Bounded: what does not fit, or comes faster than kPerSecond, is counted instead.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/function.h"

namespace fs3::storage {

// Thread safety: all calls from any thread. `wake` is called without the lock held.
class WarningLog {
 public:
  static constexpr size_t kMaxWaiting = 64;
  static constexpr int kPerSecond = 20;

  explicit WarningLog(Function<void()> wake) : wake_(std::move(wake)) {}

  void add(int64_t now_ns, std::string text) {
    {
      std::lock_guard lock(mutex_);
      if (now_ns - second_began_ns_ >= 1'000'000'000) {
        second_began_ns_ = now_ns;
        this_second_ = 0;
      }
      if (++this_second_ > kPerSecond || waiting_.size() >= kMaxWaiting) {
        ++suppressed_;
        return;
      }
      waiting_.push_back(std::move(text));
    }
    wake_();
  }

  std::vector<std::string> take() {
    std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    out.swap(waiting_);
    if (suppressed_ > 0)
      out.push_back(std::to_string(suppressed_) + " further warnings were suppressed");
    suppressed_ = 0;
    return out;
  }

 private:
  Function<void()> wake_;
  std::mutex mutex_;  // guards everything below
  std::vector<std::string> waiting_;
  uint64_t suppressed_ = 0;
  int64_t second_began_ns_ = 0;
  int this_second_ = 0;
};

}  // namespace fs3::storage
