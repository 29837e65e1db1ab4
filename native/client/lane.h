// Lane: what one client keeps per reactor: its channels, its timers, its share of the bytes that
// may be on the wire, and what it remembers of the targets it talked to.
//
// Thread safety: run() and later() from any thread; everything else only on the reactor's thread.
// Ownership: the Core owns its lanes; close() must have run before the Core is destroyed.
#pragma once

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/function.h"
#include "base/ids.h"
#include "base/reactor.h"
#include "net/rpc.h"

namespace fs3::client {

// Admits calls while their bytes and their number stay under a limit; the rest waits in order.
class Window {
 public:
  Window(size_t bytes, size_t calls)
      : limit_bytes_(static_cast<int64_t>(bytes)),
        free_bytes_(limit_bytes_),
        free_calls_(static_cast<int64_t>(calls)) {}
  // Runs `go` now or when there is room. A request larger than the whole window counts as the
  // whole.
  void enter(size_t bytes, Function<void()> go);
  // REQUIRES: one call per admitted enter(), with the same bytes.
  void leave(size_t bytes);
  // Admits everything from now on, so that waiting calls can find out that the client is closed.
  void open_wide();

 private:
  struct Waiting {
    int64_t bytes;
    Function<void()> go;
  };
  int64_t cost(size_t bytes) const;
  void pump();

  const int64_t limit_bytes_;
  int64_t free_bytes_;  // below zero only after open_wide()
  int64_t free_calls_;
  bool wide_ = false;
  bool pumping_ = false;
  std::deque<Waiting> waiting_;
};

class Lane {
 public:
  Lane(Reactor& reactor, net::Identity self, size_t inflight_bytes, uint64_t seed);

  bool here() const { return reactor_.on_thread(); }
  // Inline when the caller is on the lane's thread, else posted.
  void run(Function<void()> function);
  // Always from the reactor's queue: never inside the caller.
  void later(Function<void()> function);

  // One call on the lane's channel to `address`. Ends with kShuttingDown after close().
  void call(const std::string& address, net::CallSpec spec, net::ReplyCallback done);
  // Runs once after the delay, or early when the lane closes.
  void after(int64_t delay_ns, Function<void()> function);
  Window& window() { return window_; }

  // Calls that wait for this target's answer, on this lane.
  int outstanding(TargetId target) const;
  void begin(TargetId target) { ++targets_[target].outstanding; }
  void end(TargetId target, bool reached);
  // True for a short time after a call did not reach the target: others are asked first.
  bool suspect(TargetId target, int64_t now) const;

  uint64_t random() { return random_(); }
  // Around `delay_ns`, from half to one and a half of it, so that many clients do not return at
  // once.
  int64_t jitter(int64_t delay_ns);

  // The metadata address that answered last; empty at first.
  std::string preferred_meta;

  // Ends open calls, runs waiting timers; `drained` runs when no call is open any more. Once.
  void close(Function<void()> drained);

 private:
  struct TargetState {
    int outstanding = 0;
    int64_t suspect_until_ns = 0;
  };
  struct Timer {
    Reactor::TimerId id;
    Function<void()> function;
  };
  void fire(uint64_t key);
  void call_ended();

  Reactor& reactor_;
  const net::Identity self_;
  Window window_;
  std::mt19937_64 random_;
  bool closed_ = false;
  size_t open_calls_ = 0;
  Function<void()> drained_;
  std::unordered_map<std::string, std::shared_ptr<net::Channel>> channels_;
  std::unordered_map<TargetId, TargetState> targets_;
  std::unordered_map<uint64_t, Timer> timers_;
  uint64_t next_timer_ = 1;
};

}  // namespace fs3::client
