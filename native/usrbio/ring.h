// The ring: what lies in the memory that a program and the mount share. The canonical text; both
// sides use this header, and nothing else knows the layout.
//
//   RingHead                  4096 bytes
//   uint8_t state[entries]    up to the next multiple of 128
//   Slot slot[entries]        128 bytes each
//
// One slot is one I/O. Its state says whose it is:
//
//   free -> preparing -> ready -> taken -> done -> reaping -> free
//        program      program  mount    mount   program   program
//
// There are no cursors: which slots are ready, and which are done, is read off the states; the
// order is that of `sequence`, which the program counts. So a ring can be used by several threads
// and across fork(), completions are handed out in the order of submission as far as they are
// there, a process that takes over from a killed mount finds every I/O that was under way (taken),
// and there is no arithmetic that a lying program could lead astray: whatever it writes here, the
// mount reads a slot once, checks the copy, and keeps its own books about what it has taken.
//
// Waking up. The mount sleeps in epoll on a FIFO, the bell. Before it sleeps it sets bell_wanted
// and looks at the states once more; a program that has made slots ready exchanges bell_wanted for
// 0 and rings when it was set. A program sleeps in a futex on `completed`; before, it says in
// wake_at at which value it wants to be woken, and looks once more. A program that uses poll(2)
// instead sets event_wanted: the mount then writes a byte into a second FIFO, and no other until
// event_pending is cleared.
//
// `head.version` is that of this layout. The mount refuses a ring of another one, with EPROTO.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace fs3::usrbio {

constexpr uint64_t kRingMagic = 0x676e697233736600;  // "\0fs3ring"
constexpr uint32_t kRingVersion = 1;
constexpr uint32_t kEntriesMax = 1u << 16;  // 8.4 MB of ring

enum class State : uint8_t { kFree, kPreparing, kReady, kTaken, kDone, kReaping };

// As HF3FS_IOR_* of hf3fs_usrbio.h.
constexpr uint64_t kAllowUncommitted = 1;  // reads never wait for long here: no effect
constexpr uint64_t kForbidHoles = 2;

struct RingHead {
  // Written once, before the ring is registered.
  uint64_t magic;
  uint32_t version;
  uint32_t entries;
  uint64_t flags;
  int32_t priority;  // < 0 high, 0 normal, > 0 low
  uint32_t for_read;
  int32_t io_depth;    // as given; every I/O is started as soon as it is seen, whatever it says
  int32_t timeout_ms;  // likewise
  // Written by the mount.
  alignas(64) std::atomic<uint32_t> completed;  // counts; futex
  std::atomic<int32_t> ended;                   // an errno: this ring is not served any more
  // Written by both.
  alignas(64) std::atomic<uint32_t> bell_wanted;
  alignas(64) std::atomic<uint64_t> wake_at;  // kNobody, or kSomebody + value of `completed`
  std::atomic<uint32_t> event_wanted;
  std::atomic<uint32_t> event_pending;
  // Written by the program.
  alignas(64) std::atomic<uint64_t> sequence;
};
constexpr size_t kHeadBytes = 4096;
static_assert(sizeof(RingHead) <= kHeadBytes);

constexpr uint64_t kNobody = 0;
constexpr uint64_t kSomebody = 1ull << 32;

// What is asked for. Written by the program before the slot is ready.
struct Request {
  uint8_t iov[16];       // which memory
  uint64_t iov_offset;   // of the first byte in it
  uint64_t length;       // bytes
  uint64_t file;         // what registration of the descriptor gave (FileReference)
  uint64_t key;          // likewise
  uint64_t file_offset;  // bytes
  uint64_t sequence;     // one more than that of the request before
};
static_assert(sizeof(Request) == 64);

struct Slot {
  Request request;
  int64_t result;     // bytes, or a negative errno; valid when done
  uint64_t userdata;  // the program's own
  uint8_t padding[48];
};
static_assert(sizeof(Slot) == 128);

static_assert(std::atomic<uint8_t>::is_always_lock_free && sizeof(std::atomic<uint8_t>) == 1);
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);

constexpr size_t state_bytes(uint32_t entries) {
  return (size_t{entries} + sizeof(Slot) - 1) / sizeof(Slot) * sizeof(Slot);
}
constexpr size_t ring_bytes(uint32_t entries) {
  return kHeadBytes + state_bytes(entries) + size_t{entries} * sizeof(Slot);
}

// Where things lie in a mapped ring. `entries` is the reader's own copy, checked.
class RingView {
 public:
  RingView() = default;
  RingView(void* memory, uint32_t entries)
      : memory_(static_cast<std::byte*>(memory)), entries_(entries) {}
  RingHead& head() const { return *reinterpret_cast<RingHead*>(memory_); }
  std::atomic<uint8_t>& state(uint32_t i) const {
    return reinterpret_cast<std::atomic<uint8_t>*>(memory_ + kHeadBytes)[i];
  }
  Slot& slot(uint32_t i) const {
    return reinterpret_cast<Slot*>(memory_ + kHeadBytes + state_bytes(entries_))[i];
  }
  State state_of(uint32_t i) const {
    return static_cast<State>(state(i).load(std::memory_order_acquire));
  }
  uint32_t entries() const { return entries_; }

  // Calls `each(i)` for the slots in this state, eight at a time where none is.
  template <typename Each>
  void for_each(State wanted, Each each) const {
    const auto* words = reinterpret_cast<const std::atomic<uint64_t>*>(memory_ + kHeadBytes);
    uint64_t pattern = 0x0101010101010101ull * static_cast<uint8_t>(wanted);
    for (uint32_t i = 0; i < entries_; i += 8) {
      uint64_t different = words[i / 8].load(std::memory_order_acquire) ^ pattern;
      // A zero byte of `different` is a slot in that state.
      if (((different - 0x0101010101010101ull) & ~different & 0x8080808080808080ull) == 0) continue;
      for (uint32_t j = i; j < i + 8 && j < entries_; ++j) {
        if (state_of(j) == wanted) each(j);
      }
    }
  }

 private:
  std::byte* memory_ = nullptr;
  uint32_t entries_ = 0;
};

// The names in 3fs-virt/iovs: a UUID, and behind it what is registered.
//   UUID          memory: symlink to /dev/shm/ANY
//   UUID.bBYTES   the same; 3FS's block size, which changes nothing here
//   UUID.ring     a ring: symlink to /dev/shm/NAME, with FIFOs NAME.bell and NAME.event beside it
constexpr const char* kRingSuffix = ".ring";
constexpr const char* kBellSuffix = ".bell";
constexpr const char* kEventSuffix = ".event";

// What the ioctl on an open file gives: how a slot names the file. `key` proves that whoever uses
// it had the file open; it is good as long as the file is.
struct FileReference {
  uint32_t version;  // kRingVersion
  uint32_t flags;    // open(2)
  uint64_t file;
  uint64_t key;
};
static_assert(sizeof(FileReference) == 24);
constexpr unsigned long kIoctlRingFile = 0x80186840;  // _IOR('h', 0x40, FileReference)

}  // namespace fs3::usrbio
