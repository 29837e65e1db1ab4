// RingServer: what programs have registered with a mount, and the rings that it serves.
//
//   3fs-virt/iovs/NAME ── symlink(2), unlink(2) ──> RingServer ── IovTable: memory, mapped
//                                                              └─ ServedRing, each on one reactor
//
// Who registers memory must own the file in /dev/shm, or be root, or the file is open to everybody;
// what is registered is seen and used by its owner and root alone.
//
// Dead programs: the bell of a ring is a FIFO, whose last writer goes with the last process that
// has the ring (forked ones count). Memory goes when the process that registered it is dead and
// none of its rings is left; a file in /dev/shm that the library made for it is unlinked then.
//
// Thread safety: from any thread; create and destroy on the controlling thread, pause() and end()
// not on a reactor. The reactors outlive the server.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/reactor.h"
#include "usrbio/served_ring.h"

namespace fs3::usrbio {

class RingKeeper;

class RingServer {
 public:
  static constexpr size_t kNamesMax = 16'384;  // each is a mapping of this process

  struct Owner {
    uint32_t uid = 0;
    uint32_t pid = 0;  // 0: in another PID namespace; its death is not seen
  };
  // A registered name.
  struct Name {
    std::string name;
    std::string target;
    uint64_t number = 0;  // never used twice
    Owner owner;
  };
  // REQUIRES: at least one reactor. `keeper`: null, or outlives the server.
  RingServer(std::vector<Reactor*> reactors, RingFiles& files, RingKeeper* keeper = nullptr,
             std::string shm_directory = "/dev/shm");
  ~RingServer();

  // When it returns well the memory is mapped, and a ring is served. EINVAL: a name or a target of
  // another form; EEXIST; EACCES; ENOENT; ENOSPC: too many; EPROTO: a ring of another version.
  Result<Name> add(std::string_view name, std::string_view target, Owner owner);
  // What a keeper holds of a process before: descriptors are taken over, whatever comes of it.
  Status restore(const Name& name, const std::vector<int>& descriptors);
  // `done` when no I/O of a ring is under way any more. ENOENT when it is not there for this user.
  void remove(std::string_view name, uint32_t uid, Function<void(Status)> done);
  std::optional<Name> find(std::string_view name, uint32_t uid) const;
  std::optional<Name> find(uint64_t number, uint32_t uid) const;
  // In the order of registration.
  std::vector<Name> list(uint32_t uid) const;

  // Takes nothing more, and waits until what was taken is answered: another process goes on.
  // False: not everything was, in that time.
  bool pause(int64_t timeout_ns);
  // The mount is over; programs that wait are told this errno.
  void end(int error);

  struct Counts {
    size_t rings = 0, iovs = 0;
  };
  Counts counts() const;

 private:
  struct Lane;
  struct Entry {
    Name name;
    std::optional<IovId> iov;
    std::shared_ptr<ServedRing> ring;
    uint64_t file_inode = 0;  // of the file in /dev/shm
  };
  class Watch;

  // Memory; for a ring the bell and the event FIFO as well.
  Result<std::vector<int>> open_files(std::string_view name, std::string_view target, Owner owner);
  Result<Entry> make_entry(const Name& name, const std::vector<int>& descriptors);
  Status enter(Entry entry);
  Result<int> open_shared(std::string_view target, Owner owner, uint32_t type, int flags);
  const Entry* visible(std::string_view name, uint32_t uid) const;
  void drop(const std::string& name, Function<void()> then);
  void watch(uint32_t pid);
  void process_ended(uint32_t pid);
  void collect(uint32_t pid);
  void forget_file(const Entry& entry);
  std::vector<std::shared_ptr<ServedRing>> rings() const;

  RingFiles& files_;
  RingKeeper* const keeper_;
  const int shm_;  // a descriptor of the directory
  const std::string shm_prefix_;
  const std::vector<Reactor*> reactors_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  IovTable iovs_;
  Load load_{};
  std::atomic<size_t> next_lane_{0};

  mutable std::mutex mutex_;
  bool ended_ = false;                                  // guarded by mutex_, as the rest
  std::map<std::string, Entry, std::less<>> entries_;   // by name
  std::map<uint64_t, std::string> numbers_;             // number -> name
  std::map<uint32_t, std::shared_ptr<Watch>> watches_;  // by pid
  uint64_t next_number_ = 0;
  // For callbacks that come when the server is gone.
  const std::shared_ptr<std::atomic<bool>> alive_ = std::make_shared<std::atomic<bool>>(true);
};

// Who holds what was registered while this process dies and another one comes
// (fs3/mount/keeper.py).
class RingKeeper {
 public:
  virtual ~RingKeeper() = default;
  // The descriptors are duplicated. When it returns they outlive this process.
  virtual void keep(const RingServer::Name& name, const std::vector<int>& descriptors) = 0;
  virtual void drop(const std::string& name) = 0;
};

}  // namespace fs3::usrbio
