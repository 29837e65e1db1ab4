// ServedRing: the mount's side of one ring (ring.h).
//
// It hangs on one reactor, and so do its small I/Os: they go out on that reactor's connections and
// come back on its thread. Large reads take turns on all reactors, because receiving and checking
// them is what a thread can do 2.5 GB/s of. What the program writes into the ring is believed of
// nothing but that it asks for something: a slot is copied once and the copy checked; which slots
// are under way is kept here. A ring that breaks the rules hurts itself.
//
// Thread safety: the reactor's thread only, but for the constructor. Ownership: shared by the
// server's table and by the I/Os under way, which end by themselves.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/reactor.h"
#include "base/shared_memory.h"
#include "usrbio/files.h"
#include "usrbio/ring.h"

namespace fs3::usrbio {

using IovId = std::array<uint8_t, 16>;

// The memory that is registered with a mount. Thread safe.
class IovTable {
 public:
  // False: there is one of this name.
  bool add(const IovId& id, uint32_t uid, std::shared_ptr<SharedMemory> memory);
  void remove(const IovId& id);
  // Null: there is none, or it is another user's. Root may use everybody's.
  std::shared_ptr<SharedMemory> find(const IovId& id, uint32_t uid) const;
  // Grows with every change.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  struct Entry {
    uint32_t uid;
    std::shared_ptr<SharedMemory> memory;
  };
  mutable std::mutex mutex_;
  std::map<IovId, Entry> entries_;  // guarded by mutex_
  std::atomic<uint64_t> version_{1};
};

// How many I/Os are under way, by priority: 0 high, 1 normal, 2 low.
using Load = std::array<std::atomic<int64_t>, 3>;

// Bytes that a reactor's writes hold in copies; who does not fit waits, in order.
class CopyWindow {
 public:
  explicit CopyWindow(size_t bytes) : free_(bytes) {}
  // Runs `go` now or later. REQUIRES: bytes is at most the whole window.
  void enter(size_t bytes, Function<void()> go);
  void leave(size_t bytes);

 private:
  struct Waiting {
    size_t bytes;
    Function<void()> go;
  };
  size_t free_;
  std::deque<Waiting> waiting_;
};

class ServedRing final : public Reactor::FdHandler,
                         public std::enable_shared_from_this<ServedRing> {
 public:
  struct Parts {
    std::shared_ptr<SharedMemory> memory;
    int bell = -1;  // both are owned
    int event = -1;
    uint32_t uid = 0;
  };
  // Of the mount; all outlive the ring.
  struct Surroundings {
    Reactor& reactor;
    const std::vector<Reactor*>& reactors;  // all of them
    RingFiles& files;
    IovTable& iovs;
    Load& load;
    CopyWindow& copies;
  };
  // EPROTO, EINVAL: the memory is no ring, or one of another version.
  static Result<std::shared_ptr<ServedRing>> create(Parts parts, Surroundings around);
  ~ServedRing() override;

  // Begins to serve. I/Os that a process before had taken are done again: a read or write that was
  // not answered may happen twice. `gone` runs when the last process that had the ring is dead.
  void start(Function<void()> gone);
  // Takes nothing more; another process will.
  void pause();
  // Takes nothing more; whoever waits is told this errno.
  void end(int error);
  // When no I/O is under way, or the ring is lost.
  void when_idle(Function<void()> then);

  Reactor& reactor() { return around_.reactor; }
  int bell() const { return parts_.bell; }
  int event() const { return parts_.event; }

  void on_events(uint32_t events) override;

 private:
  struct Io;
  ServedRing(Parts parts, Surroundings around, const RingHead& head, uint32_t entries);

  void look();
  size_t window() const;
  void take(uint32_t index);
  void begin(uint32_t index);
  int check(const Request& request, std::shared_ptr<SharedMemory>* memory);
  std::shared_ptr<SharedMemory> memory_of(const Request& request);
  void read_on(std::shared_ptr<Io> io);
  void read_piece(const std::shared_ptr<Io>& io, size_t length);
  void write_on(std::shared_ptr<Io> io);
  void write_piece(std::shared_ptr<Io> io, size_t length);
  void advance(std::shared_ptr<Io> io, size_t wanted, const Result<size_t>& result);
  void complete(uint32_t index, int64_t result);
  void schedule();
  void round_ended();
  void announce();
  void wake();
  void detach();

  Parts parts_;
  const Surroundings around_;
  Function<void()> gone_;
  const RingView view_;
  const bool for_read_;
  const bool refuse_holes_;
  const int priority_;  // index into Load

  std::vector<bool> busy_;  // by slot: taken here
  size_t in_flight_ = 0;
  size_t turn_ = 0;  // of the reactors, for large reads
  uint32_t unannounced_ = 0;
  bool attached_ = false;  // the bell is watched
  bool scheduled_ = false;
  bool ending_round_ = false;
  bool paused_ = false;
  bool ended_ = false;
  std::vector<Function<void()>> idle_waiters_;
  std::map<IovId, std::shared_ptr<SharedMemory>> known_;  // as of known_version_
  uint64_t known_version_ = 0;
};

}  // namespace fs3::usrbio
