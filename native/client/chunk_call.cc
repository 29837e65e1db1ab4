#include "client/chunk_call.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "client/core.h"
#include "client/retry.h"

namespace fs3::client {

namespace {

// An attempt that is not answered is repeated: a read on another replica, where waiting longer buys
// nothing; an update at the head again, where it may merely wait for a slow disk, so more
// patiently.
constexpr int64_t kReadAttemptNs = 2'000'000'000;
constexpr int64_t kUpdateAttemptNs = 5'000'000'000;
// A head whose disk failed stops serving; until routing says so it answers EIO.
constexpr int64_t kDiskErrorPatienceNs = 10'000'000'000;
constexpr int kRenewalsMax = 3;
constexpr int kDamagedMax = 4;

class Runner : public std::enable_shared_from_this<Runner> {
 public:
  Runner(std::shared_ptr<Core> core, Lane& lane, ChunkCall call)
      : core_(std::move(core)),
        lane_(lane),
        call_(std::move(call)),
        started_ns_(now_ns()),
        deadline_ns_(started_ns_ + core_->options.data_deadline_ns) {}

  // Bytes count against the window only while an attempt is on the wire: a chain that is down must
  // not hold up the others.
  void enter() {
    lane_.window().enter(call_.bytes, [self = shared_from_this()] { self->attempt(); });
  }

 private:
  void attempt() {
    int64_t now = now_ns();
    if (core_->closed()) return fail_attempt(core_->closed_status());
    if (now >= deadline_ns_) return fail_attempt(deadline_passed("client/chunk", last_));
    auto routing = core_->routing.snapshot();
    std::string address;
    if (!choose(*routing, now, &address)) return pause_for_routing();
    net::CallSpec spec;
    spec.method = call_.method;
    spec.capability = call_.credential->token(core_, lane_);
    spec.deadline_ns =
        std::min(deadline_ns_, now + (call_.to_head ? kUpdateAttemptNs : kReadAttemptNs));
    call_.fill(route_, spec);
    lane_.begin(route_.target);
    lane_.call(address, std::move(spec),
               [self = shared_from_this()](net::Reply reply) { self->answered(std::move(reply)); });
  }

  // Fills route_ and the address. False while routing has no serving target for the chunk.
  bool choose(const RoutingSnapshot& routing, int64_t now, std::string* address) {
    auto chain = call_.placement->chain_of(call_.chunk_index, routing);
    const ChainRoute* route = chain ? routing.chain(*chain) : nullptr;
    if (route == nullptr || route->serving.empty()) return false;
    const Replica& replica = call_.to_head ? route->serving.front() : best(*route, now);
    auto node = routing.nodes.find(replica.node);
    if (node == routing.nodes.end()) return false;
    *address = choose_address(node->second, unreached_);
    route_ = {replica.target, *chain, route->version};
    return !address->empty();
  }

  const Replica& best(const ChainRoute& route, int64_t now) {
    size_t first = lane_.random() % route.serving.size();  // ties go round
    const Replica* best = nullptr;
    std::pair<int, int> best_rank;
    for (size_t i = 0; i < route.serving.size(); ++i) {
      const Replica& replica = route.serving[(first + i) % route.serving.size()];
      bool failed = std::find(avoid_.begin(), avoid_.end(), replica.target) != avoid_.end();
      std::pair<int, int> rank{2 * failed + lane_.suspect(replica.target, now),
                               lane_.outstanding(replica.target)};
      if (best == nullptr || rank < best_rank) {
        best = &replica;
        best_rank = rank;
      }
    }
    return *best;
  }

  // The attempt never went out.
  void fail_attempt(Status status) {
    lane_.window().leave(call_.bytes);
    finish({.status = std::move(status)});
  }

  void pause_for_routing() {
    lane_.window().leave(call_.bytes);
    if (last_.ok()) last_ = Status(kNotServing, "client/chunk", "no serving target in routing");
    refresh_then_retry();
  }

  void answered(net::Reply reply) {
    uint32_t code = reply.status.code();
    bool unreached = code == kConnectionLost || code == kTimedOut || code == kShuttingDown;
    lane_.end(route_.target, !unreached);
    lane_.window().leave(call_.bytes);
    if (reply.status.ok()) return finish(std::move(reply));
    if (core_->closed()) return finish({.status = core_->closed_status()});
    last_ = reply.status;
    if (unreached) ++unreached_;
    if (code == kCapabilityDenied && renewals_ < kRenewalsMax) return renew();
    Retry retry = worth_repeating(code) ? Retry::kElsewhere : retry_of(code);
    if (retry == Retry::kNo) return finish(std::move(reply));
    core_->counters.data_retries.fetch_add(1, std::memory_order_relaxed);
    ++failures_;
    if (!call_.to_head) return read_elsewhere(retry);
    if (retry == Retry::kSameServer) return retry_after(lane_.jitter(backoff_ns(failures_)));
    refresh_then_retry();
  }

  // Damage that another replica, or the same one soon, may not have.
  bool worth_repeating(uint32_t code) {
    if (code == kChecksumMismatch) return ++damaged_ < kDamagedMax;
    if (code != EIO) return false;
    if (call_.to_head) return now_ns() - started_ns_ < kDiskErrorPatienceNs;
    return ++damaged_ < kDamagedMax;
  }

  // Every other replica is asked at once; only when all have refused is there a pause.
  void read_elsewhere(Retry retry) {
    if (std::find(avoid_.begin(), avoid_.end(), route_.target) == avoid_.end()) {
      avoid_.push_back(route_.target);
    }
    auto routing = core_->routing.snapshot();
    const ChainRoute* route = routing->chain(route_.chain);
    bool others = route != nullptr && avoid_.size() < route->serving.size();
    if (retry != Retry::kReroute && others) return retry_after(0);
    if (!others) avoid_.clear();
    refresh_then_retry();
  }

  void refresh_then_retry() {
    core_->routing.refresh(core_, lane_, [self = shared_from_this()] {
      ++self->refreshes_;
      // The first refresh usually brings the answer; later ones wait for the cluster to decide.
      self->retry_after(self->refreshes_ == 1 ? 0
                                              : self->lane_.jitter(backoff_ns(self->refreshes_)));
    });
  }

  void renew() {
    ++renewals_;
    call_.credential->renew(core_, lane_, [self = shared_from_this()](Status status) {
      if (!status.ok()) return self->finish({.status = std::move(status)});
      self->retry_after(0);
    });
  }

  void retry_after(int64_t delay_ns) {
    lane_.after(delay_ns, [self = shared_from_this()] { self->enter(); });
  }

  void finish(net::Reply reply) {
    FS3_CHECK(call_.done);
    auto done = std::move(call_.done);
    done(std::move(reply));
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  ChunkCall call_;
  const int64_t started_ns_;
  const int64_t deadline_ns_;
  Route route_;
  Status last_;
  std::vector<TargetId> avoid_;
  unsigned failures_ = 0;
  unsigned unreached_ = 0;
  unsigned refreshes_ = 0;
  int renewals_ = 0;
  int damaged_ = 0;
};

}  // namespace

void start_chunk_call(std::shared_ptr<Core> core, Lane& lane, ChunkCall call) {
  auto runner = std::make_shared<Runner>(std::move(core), lane, std::move(call));
  lane.run([runner] { runner->enter(); });
}

}  // namespace fs3::client
