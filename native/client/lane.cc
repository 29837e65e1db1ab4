#include "client/lane.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fs3::client {

namespace {
// A channel holds at most 256 calls; one lane never has more than this many data calls open, so the
// rest is left for metadata.
constexpr size_t kCallsPerLane = 192;
constexpr int64_t kSuspectNs = 500'000'000;
}  // namespace

int64_t Window::cost(size_t bytes) const {
  return std::min(static_cast<int64_t>(bytes), limit_bytes_);
}

void Window::enter(size_t bytes, Function<void()> go) {
  waiting_.push_back({cost(bytes), std::move(go)});
  pump();
}

void Window::leave(size_t bytes) {
  free_bytes_ += cost(bytes);
  ++free_calls_;
  FS3_CHECK(free_bytes_ <= limit_bytes_);
  pump();
}

void Window::open_wide() {
  wide_ = true;
  pump();
}

void Window::pump() {
  if (pumping_) return;  // the loop below goes on: calls that end at once must not nest
  pumping_ = true;
  while (!waiting_.empty()) {
    Waiting& next = waiting_.front();
    if (!wide_ && (free_calls_ <= 0 || free_bytes_ < next.bytes)) break;
    --free_calls_;
    free_bytes_ -= next.bytes;
    Function<void()> go = std::move(next.go);
    waiting_.pop_front();
    go();
  }
  pumping_ = false;
}

Lane::Lane(Reactor& reactor, net::Identity self, size_t inflight_bytes, uint64_t seed)
    : reactor_(reactor),
      self_(std::move(self)),
      window_(inflight_bytes, kCallsPerLane),
      random_(seed) {}

void Lane::run(Function<void()> function) {
  if (here()) {
    function();
  } else {
    reactor_.post(std::move(function));
  }
}

void Lane::later(Function<void()> function) { reactor_.post(std::move(function)); }

void Lane::call(const std::string& address, net::CallSpec spec, net::ReplyCallback done) {
  FS3_CHECK(here());
  if (closed_) {
    done({.status = Status(kShuttingDown, "client", "the client is closed")});
    return;
  }
  auto found = channels_.find(address);
  if (found == channels_.end()) {
    auto made = net::Channel::create(reactor_, address, self_);
    if (!made.ok()) {
      done({.status = made.status()});
      return;
    }
    found = channels_.emplace(address, std::move(made).value()).first;
  }
  // The channel may end other calls inside this one, and one of them may close the lane.
  auto channel = found->second;
  ++open_calls_;
  channel->call(std::move(spec), [this, done = std::move(done)](net::Reply reply) mutable {
    done(std::move(reply));
    call_ended();
  });
}

void Lane::call_ended() {
  FS3_CHECK(open_calls_ > 0);
  --open_calls_;
  if (open_calls_ == 0 && drained_) std::exchange(drained_, nullptr)();
}

void Lane::after(int64_t delay_ns, Function<void()> function) {
  FS3_CHECK(here());
  if (closed_) {
    reactor_.post(std::move(function));
    return;
  }
  uint64_t key = next_timer_++;
  auto id = reactor_.after(delay_ns, [this, key] { fire(key); });
  timers_.emplace(key, Timer{id, std::move(function)});
}

void Lane::fire(uint64_t key) {
  auto found = timers_.find(key);
  if (found == timers_.end()) return;
  Function<void()> function = std::move(found->second.function);
  timers_.erase(found);
  function();
}

int Lane::outstanding(TargetId target) const {
  auto found = targets_.find(target);
  return found == targets_.end() ? 0 : found->second.outstanding;
}

void Lane::end(TargetId target, bool reached) {
  TargetState& state = targets_[target];
  --state.outstanding;
  FS3_CHECK(state.outstanding >= 0);
  state.suspect_until_ns = reached ? 0 : now_ns() + kSuspectNs;
}

bool Lane::suspect(TargetId target, int64_t now) const {
  auto found = targets_.find(target);
  return found != targets_.end() && found->second.suspect_until_ns > now;
}

int64_t Lane::jitter(int64_t delay_ns) {
  return delay_ns / 2 + static_cast<int64_t>(random_() % static_cast<uint64_t>(delay_ns + 1));
}

void Lane::close(Function<void()> drained) {
  FS3_CHECK(here() && !closed_);
  closed_ = true;
  auto timers = std::move(timers_);
  timers_.clear();
  for (auto& [key, timer] : timers) {
    reactor_.cancel(timer.id);
    timer.function();
  }
  window_.open_wide();
  drained_ = std::move(drained);
  channels_.clear();  // their open calls end with kShuttingDown, soon after
  if (open_calls_ == 0 && drained_) std::exchange(drained_, nullptr)();
}

}  // namespace fs3::client
