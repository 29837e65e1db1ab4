// Handover: what a mount process leaves to the one that serves the same mount after it, when it is
// killed or replaced.
//
// A keeper process (fs3/mount/keeper.py) holds the descriptors of the FUSE connection and this
// memory, a memfd. As long as somebody holds the descriptors the kernel keeps the mount, and the
// requests that were read from them and not answered; the next process asks for those again
// (FUSE_NOTIFY_RESEND, Linux 6.9). In the memory is what it cannot find out by asking:
//
//   head      what was negotiated with the kernel, where the mount is
//   handles   every open file: its inode, how it was opened, whether writes of it are unsettled
//   calls     metadata calls that change something, under way: under which name. A request that
//             the kernel sends again is sent to the service under the same name, so it happens
//             once. So are places for appends asked for: an append that is sent again gets the same
//
// Everything is written by plain stores: they cost nothing, and survive the process by the memfd.
// A record is valid when its first word is not 0; that word is written last and cleared first.
//
// Thread safety: every method from any thread; a slot belongs to who took it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "client/client.h"
#include "fuse/kernel.h"

namespace fs3::fuse {

// In the unique id of a request that the kernel sends again.
constexpr uint64_t kUniqueResend = 1ull << 63;

class Handover {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kHandlesMax = 1u << 20;  // FileTable::kOpenMax
  static constexpr uint32_t kCallsMax = 1u << 14;    // requests under way: threads that wait

  // What was negotiated.
  struct Connection {
    fuse_init_out init{};
    uint32_t kernel_minor = 0;
    bool resends = false;     // the kernel can send requests again
    uint64_t root_inode = 0;  // of the directory that is mounted
    std::string mountpoint;
  };
  struct OpenHandle {
    uint32_t slot = kNone;
    uint64_t handle = 0;
    uint64_t inode = 0;
    uint32_t flags = 0;        // open(2)
    bool unsettled = false;    // it was written through, and no settlement was answered since
    bool half_append = false;  // the rest of an append had not come yet
  };
  using CallName = client::Client::CallName;

  static Result<std::shared_ptr<Handover>> create();
  // Of a process before. `fd` is duplicated. Fails when it is not such a memory of this version.
  static Result<std::shared_ptr<Handover>> adopt(int fd);
  ~Handover();
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  int fd() const { return fd_; }
  // 0 for the process that mounted, and one more for each after it.
  uint64_t generation() const { return generation_; }

  void set_connection(const Connection& connection);
  Connection connection() const;

  // Random, and the same for all processes of this mount: what the kernel's descriptors prove to
  // one of them (ring files) counts for the next.
  using Secret = std::array<std::byte, 16>;
  Secret secret() const;

  // What the process before had open and under way; empty in generation 0.
  const std::vector<OpenHandle>& inherited() const { return inherited_; }
  // Under which name the process before sent the call of this request; null when it sent none.
  const CallName* earlier_call(uint64_t unique) const;

  // kNone: the table is full; the handle is not there after a takeover. An inherited handle keeps
  // its slot.
  uint32_t note_open(uint64_t handle, uint64_t inode, uint32_t flags);
  void note_closed(uint32_t slot);
  // Before a write is answered.
  void note_written(uint32_t slot);
  // Before an append is answered: it is, or is not, the first part of one write(2).
  void note_piece(uint32_t slot, bool more_follows);
  // Around a settlement: what was written when it began is settled when it succeeded.
  uint32_t written(uint32_t slot) const;
  void note_settled(uint32_t slot, uint32_t written);

  // kNone: too many; this one would be sent again under another name. A request of an earlier call
  // gets the slot of that call.
  uint32_t begin_call(uint64_t unique, const CallName& name);
  void end_call(uint32_t slot);
  // The same for a request that earlier_call() knows. REQUIRES: it was begun here, and not ended.
  void end_earlier_call(uint64_t unique);

 private:
  struct Head;
  struct HandleRecord;
  struct CallRecord;
  // Slots that nobody uses. LIFO, so that few pages are touched.
  class Free {
   public:
    explicit Free(uint32_t size) : size_(size) {}
    uint32_t take();
    void give(uint32_t slot);
    // Before the first take(). `used`: in ascending order.
    void inherit(const std::vector<uint32_t>& used);

   private:
    const uint32_t size_;
    std::mutex mutex_;
    uint32_t untouched_ = 0;      // guarded by mutex_: from here on none was ever taken
    std::vector<uint32_t> free_;  // guarded by mutex_
  };

  Handover(int fd, void* memory);
  void inherit();
  void make_secret();

  const int fd_;
  Head* const head_;
  HandleRecord* const handles_;
  CallRecord* const calls_;
  uint64_t generation_ = 0;
  std::vector<OpenHandle> inherited_;
  struct EarlierCall {
    uint32_t slot = kNone;
    CallName name;
  };
  std::unordered_map<uint64_t, EarlierCall> earlier_calls_;  // constant after adopt()
  Free free_handles_{kHandlesMax};
  Free free_calls_{kCallsMax};
};

}  // namespace fs3::fuse
