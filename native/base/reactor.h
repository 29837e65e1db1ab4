// Reactor: one thread, one epoll, timers, and a queue of posted functions. Sockets, disks and the
// FUSE session all hang on a reactor, so one request runs through one thread without a wake-up in
// between.
//
// Thread safety: post(), run_and_wait(), stop(), on_thread() from any thread; everything else only
// on the reactor's thread (or before run() started). Handlers never block. Invariants:
//  1. Functions posted by one thread run in the order they were posted.
//  2. `defer` functions run after all events of the current round, before the next wait: the place
//  to flush what a
//     round gathered (one writev for many replies, one commit for many writes).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/function.h"
#include "base/status.h"

namespace fs3 {

// Nanoseconds on CLOCK_BOOTTIME: monotonic, counts suspend. The only clock the data path knows.
int64_t now_ns();

class Reactor {
 public:
  using TimerId = uint64_t;

  // Called with the ready epoll events (EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP).
  class FdHandler {
   public:
    virtual ~FdHandler() = default;
    virtual void on_events(uint32_t events) = 0;
  };

  static Result<std::unique_ptr<Reactor>> create(std::string name);
  ~Reactor();

  // Runs until stop(), may be called again. The calling thread becomes the reactor's, named `name`.
  void run();
  // Ends run() after the current round, or the next run() at once. What is posted is run first.
  void stop();
  bool on_thread() const;

  void post(Function<void()> function);
  // Runs `function` on the reactor's thread and returns when it has run: at once when called there,
  // or when no thread is in run() (nothing else can be running then). From any thread.
  // REQUIRES: the caller holds no lock that functions on the reactor take.
  void run_and_wait(Function<void()> function);
  // Runs at the end of the current round.
  void defer(Function<void()> function);

  // Level-triggered. The handler must outlive its registration; remove_fd() may be called inside
  // on_events(), after which no further event is delivered, not even one already fetched in this
  // round.
  Status add_fd(int fd, uint32_t events, FdHandler* handler);
  Status modify_fd(int fd, uint32_t events);
  void remove_fd(int fd);

  TimerId after(int64_t delay_ns, Function<void()> function);
  void cancel(TimerId id);  // unknown or past ids are ignored

 private:
  explicit Reactor(std::string name);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A reactor with its own thread: started by create, stopped and joined by the destructor.
class ReactorThread {
 public:
  static Result<std::unique_ptr<ReactorThread>> create(std::string name);
  ~ReactorThread();
  Reactor& reactor();

 private:
  ReactorThread() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fs3
