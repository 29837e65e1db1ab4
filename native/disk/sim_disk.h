// A Disk in memory that behaves as badly as disk.h allows, by seed.
//
// The medium is what survives a machine: power_off() freezes it, power_on() decides sector by
// sector what of the unsynced writes is there, forgets files whose directory was not synced, and
// lets the next Disk open on it. Calls complete in a random order, later than they were made. Rules
// make chosen calls fail; a capacity makes allocation fail.
//
// Thread safety: SimMedium is safe from any thread. Determinism: the same seed and the same calls
// in the same order give the same outcome.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/reactor.h"
#include "base/status.h"
#include "disk/disk.h"

namespace fs3::disk {

struct SimFault {
  enum class On : uint8_t { kRead, kWrite, kSync, kAllocate };
  On on = On::kRead;
  std::string file;    // calls on files whose name begins so
  uint64_t skip = 0;   // let this many pass first
  uint64_t count = 1;  // then fail this many
  uint32_t error = 5;  // EIO
};

class SimMedium {
 public:
  explicit SimMedium(uint64_t seed, uint64_t capacity_bytes = 1ull << 40);

  // From now on every call fails with EIO and changes nothing.
  void power_off();
  // REQUIRES: power_off() before; no Disk is open on this medium.
  void power_on();

  // The power goes off in place of the call after `calls` more of them.
  void power_off_after(uint64_t calls);
  bool is_on() const;
  // Counts as a call that changes nothing: for what else shares the power supply, and the faults.
  Status touch(const std::string& what);
  Status touch(SimFault::On on, const std::string& what);

  void inject(SimFault fault);
  void clear_faults();
  // How many calls failed by a rule: a test that injects must see this rise.
  uint64_t faults_hit() const;
  uint64_t faults_hit(SimFault::On on) const;
  void set_capacity(uint64_t bytes);
  // Flips one bit in each byte of the range, as rot does: durable and without notice.
  void corrupt(const std::string& file, uint64_t offset, uint64_t length);
  uint64_t allocated_bytes() const;
  // What a read would find now; not a call. Zeros where the file has nothing.
  std::string peek(const std::string& file, uint64_t offset, uint64_t length) const;
  // A datasync from now on says ok and does nothing.
  void lie_about_sync();
  // Becomes what the other would be after power loss, of which nothing unsynced is left. REQUIRES:
  // no Disk is open on this medium.
  void copy_durable(const SimMedium& other);

 private:
  friend class SimFile;
  friend class SimDisk;

  // A change of a file; data empty: a punch.
  struct Change {
    uint64_t offset = 0;
    uint64_t length = 0;
    std::string data;
  };
  struct Content {
    std::map<uint64_t, std::string> pages;  // by offset / kAlignment; a missing page is zeros
    std::vector<bool> allocated;            // by offset / kAlignment
    uint64_t length = 0;

    void apply(const Change& change, uint64_t from, uint64_t size);
    void apply(const Change& change) { apply(change, 0, change.length); }
    void allocate(uint64_t offset, uint64_t size);
    uint64_t allocated_pages() const;
  };
  struct Image {
    Content now, durable;
    std::vector<Change> unsynced;  // in the order of their completion
    bool linked = false;           // the directory entry is durable
  };

  // All with mutex_ held.
  Status check_power(const std::string& file);
  Status check_fault(SimFault::On on, const std::string& file);
  uint64_t used_bytes() const;
  void settle(Image& image);

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  uint64_t capacity_bytes_;
  bool on_ = true;
  bool lies_ = false;
  uint64_t calls_left_ = UINT64_MAX;
  std::map<SimFault::On, uint64_t> faults_hit_;
  std::vector<SimFault> faults_;
  std::map<std::string, Image> files_;
  std::map<std::string, std::string> small_;
};

// The medium must outlive the disk. `calls`: where the calls of files happen, in any order; null:
// on the reactor, in a random one. It must outlive the disk; what it runs later does nothing.
std::unique_ptr<Disk> open_sim_disk(Reactor& reactor, SimMedium& medium, Executor* calls = nullptr);

}  // namespace fs3::disk
