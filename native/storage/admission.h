// Whether the disk has room for one more update. What was admitted must never meet a full disk: a
// write that fails there ends the service of its target.
//
// Every open update counts as one new block of its size class until it is answered. The engine is
// asked for certain, unless it said lately that far more would fit than was admitted since.
// Thread safety: on the reactor's thread only.
#pragma once

#include <cstdint>

#include "engine/engine.h"

namespace fs3::storage {

class Admission {
 public:
  explicit Admission(engine::Engine& engine) : engine_(&engine) { tick(); }

  // Counts the update; false when the disk may not take it. leave() is due in both cases.
  bool enter(size_t size_class) {
    ++open_[size_class];
    bytes_since_tick_ += uint64_t{4096} << size_class;
    bool ample = plenty_ && bytes_since_tick_ <= kPlentyBytes;
    if (ample || engine_->has_room(open_)) return true;
    refused_ = true;
    return false;
  }
  void leave(size_t size_class) { --open_[size_class]; }

  // Every 100 ms or so.
  void tick() {
    engine::BlockCounts plenty = open_;
    for (size_t c = 0; c < engine::kSizeClasses; ++c)
      plenty[c] += static_cast<uint32_t>(kPlentyBytes >> (12 + c));
    plenty_ = engine_->has_room(plenty);
    bytes_since_tick_ = 0;
    refused_lately_ = refused_;
    refused_ = false;
  }
  // An update was refused between the last two ticks.
  bool refused_lately() const { return refused_lately_; }

 private:
  // More than a server takes between two ticks; asked for in each size class.
  static constexpr uint64_t kPlentyBytes = 512u << 20;

  engine::Engine* engine_;
  engine::BlockCounts open_{};
  uint64_t bytes_since_tick_ = 0;
  bool plenty_ = false;
  bool refused_ = false;
  bool refused_lately_ = false;
};

}  // namespace fs3::storage
