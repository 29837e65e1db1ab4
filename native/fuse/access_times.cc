#include "fuse/access_times.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fuse/callers.h"
#include "meta.pb.h"

namespace fs3::fuse {
namespace {

namespace pb = proto::meta;

int64_t wall_ns() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

}  // namespace

// What timers and replies hold. The client and the table are let go with the owner.
struct AccessTimes::State : std::enable_shared_from_this<State> {
  struct Noted {
    int64_t was_ns;  // what the service said last
    int64_t now_ns;
  };
  using Batch = std::unordered_map<uint64_t, Noted>;

  State(std::shared_ptr<client::Client> client, NodeTable& nodes)
      : client(std::move(client)), nodes(&nodes) {}

  struct Next {
    bool full, needs_timer;
  };
  Next note(uint64_t inode, Noted noted) {
    std::lock_guard lock(mutex);
    auto [at, fresh] = batch.emplace(inode, noted);
    if (!fresh) at->second.now_ns = noted.now_ns;
    return {batch.size() >= kBatchMax, !std::exchange(timer_runs, true)};
  }

  void send(Function<void()> done) {
    Batch going;
    std::shared_ptr<client::Client> through;
    {
      std::lock_guard lock(mutex);
      timer_runs = false;
      going.swap(batch);
      through = client;
    }
    if (going.empty() || through == nullptr) return done();
    pb::AccessedRequest body;
    for (const auto& [inode, noted] : going) {
      pb::AccessTime* one = body.add_times();
      one->set_inode(inode);
      one->set_was_ns(noted.was_ns);
      one->set_atime_ns(noted.now_ns);
    }
    through->meta_call(pb::ACCESSED, Callers::root(), 0, body.SerializeAsString(),
                       [self = shared_from_this(), going = std::move(going),
                        done = std::move(done)](Result<std::string>) mutable {
                         self->answered(going);
                         done();
                       });
  }

  void answered(const Batch& gone) {
    std::lock_guard lock(mutex);
    if (nodes == nullptr) return;
    for (const auto& [inode, noted] : gone) nodes->read_told(inode, noted.now_ns);
  }

  std::mutex mutex;
  std::shared_ptr<client::Client> client;  // guarded by mutex; null: the owner is gone
  NodeTable* nodes;                        // guarded by mutex; likewise
  Batch batch;                             // guarded by mutex
  bool timer_runs = false;                 // guarded by mutex
};

AccessTimes::AccessTimes(std::shared_ptr<client::Client> client, NodeTable& nodes,
                         AtimePolicy policy, Reactor* timers)
    : policy_(policy),
      nodes_(nodes),
      timers_(timers),
      state_(std::make_shared<State>(std::move(client), nodes)) {}

AccessTimes::~AccessTimes() {
  std::lock_guard lock(state_->mutex);
  state_->nodes = nullptr;
  state_->client = nullptr;
}

void AccessTimes::read(uint64_t inode) {
  if (policy_ == AtimePolicy::kNever) return;
  int64_t now = wall_ns();
  auto was = nodes_.read_now(inode, &now, policy_ == AtimePolicy::kAlways);
  if (!was) return;
  auto next = state_->note(inode, {*was, now});
  if (next.full) return state_->send([] {});
  if (!next.needs_timer || timers_ == nullptr) return;
  timers_->post([timers = timers_, state = state_] {
    timers->after(kDelayNs, [state] { state->send([] {}); });
  });
}

bool AccessTimes::is_due(uint64_t inode) {
  switch (policy_) {
    case AtimePolicy::kNever:
      return false;
    case AtimePolicy::kAlways:
      return true;
    case AtimePolicy::kRelative:
      return nodes_.read_due(inode, wall_ns());
  }
  return false;
}

int64_t AccessTimes::overlay(uint64_t inode, int64_t atime_ns) const {
  if (policy_ == AtimePolicy::kNever) return atime_ns;
  int64_t noted = nodes_.read_noted(inode);  // 0: nothing; times of old are below that
  return noted == 0 ? atime_ns : std::max(atime_ns, noted);
}

void AccessTimes::set_by_hand(uint64_t inode) {
  nodes_.read_told(inode, nodes_.read_noted(inode));
  std::lock_guard lock(state_->mutex);
  state_->batch.erase(inode);
}

void AccessTimes::flush(Function<void()> done) { state_->send(std::move(done)); }

}  // namespace fs3::fuse
