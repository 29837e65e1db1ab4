#include "storage/scrubber.h"

#include <algorithm>
#include <utility>

namespace fs3::storage {
namespace {

constexpr uint32_t kReadBytes = 1 << 20;
constexpr size_t kPage = 64;
constexpr uint64_t kLeastBytesPerS = 1 << 20;
constexpr int64_t kShareOfPeriod = 8;
constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kTickMaxNs = kSecondNs / 4;  // after a pause no burst

}  // namespace

Scrubber::Scrubber(engine::Engine& engine, ScrubOptions options,
                   Function<void(TargetId, ChunkId, Status)> on_damage)
    : engine_(engine), options_(options), on_damage_(std::move(on_damage)) {}

void Scrubber::tick(int64_t now_ns) {
  int64_t passed_ns = now_ns_ == 0 ? 0 : std::min(now_ns - now_ns_, kTickMaxNs);
  now_ns_ = now_ns;
  if (options_.period_ns == 0 || engine_.failed()) return;
  if (!passing_ && now_ns >= pass_due_ns_) begin_pass();
  if (!passing_) return;
  // What was not used does not add up.
  budget_ =
      std::min<int64_t>(budget_, 0) +
      static_cast<int64_t>(static_cast<double>(rate_) * static_cast<double>(passed_ns) * 1e-9);
  go_on();
}

void Scrubber::begin_pass() {
  passing_ = true;
  pass_due_ns_ = now_ns_ + options_.period_ns;
  double share_s = static_cast<double>(options_.period_ns / kShareOfPeriod) * 1e-9;
  auto wanted = static_cast<double>(engine_.space().used_bytes) / std::max(share_s, 1e-3);
  rate_ = std::min(options_.bytes_per_s, std::max(static_cast<uint64_t>(wanted), kLeastBytesPerS));
  targets_ = engine_.targets();
  std::reverse(targets_.begin(), targets_.end());
  after_.reset();
  page_.clear();
  chunk_.reset();
}

void Scrubber::end_pass() {
  passing_ = false;
  ++statistics_.passes;
  statistics_.pass_ended_ns = now_ns_;
}

void Scrubber::go_on() {
  while (passing_ && !reading_ && budget_ > 0) {
    if (chunk_ || next_chunk())
      read();
    else
      end_pass();
  }
}

// The next one with bytes that are not known as damaged.
bool Scrubber::next_chunk() {
  while (!targets_.empty()) {
    if (page_.empty()) {
      page_ = engine_.list(targets_.back().target, after_, kPage);
      std::reverse(page_.begin(), page_.end());
    }
    if (page_.empty()) {
      targets_.pop_back();
      after_.reset();
      continue;
    }
    chunk_ = page_.back();
    page_.pop_back();
    after_ = chunk_->chunk;
    offset_ = 0;
    if (chunk_->committed.length > 0 && !chunk_->damaged) return true;
  }
  chunk_.reset();
  return false;
}

void Scrubber::read() {
  reading_ = true;
  engine_.read(targets_.back().target, chunk_->chunk, offset_, kReadBytes, false,
               [this, alive = std::weak_ptr<char>(alive_)](Result<engine::ReadResult> result) {
                 if (alive.expired()) return;
                 read_done(std::move(result));
                 go_on();
               });
}

// The chunk may have changed meanwhile; whatever is there now is what is read on.
void Scrubber::read_done(Result<engine::ReadResult> result) {
  reading_ = false;
  budget_ -= kReadBytes / 64;  // a read has its price even where there is nothing to read
  if (result.ok()) {
    auto length = static_cast<uint32_t>(result->data.size());
    statistics_.bytes += length;
    budget_ -= length;
    offset_ += length;
    if (length > 0 && offset_ < result->chunk_length) return;
    ++statistics_.chunks;
  } else if (result.status().code() == kChecksumMismatch) {
    ++statistics_.damaged;
    on_damage_(targets_.back().target, chunk_->chunk, result.status());
  }
  chunk_.reset();
}

}  // namespace fs3::storage
