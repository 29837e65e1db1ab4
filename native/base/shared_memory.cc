#include "base/shared_memory.h"

#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace fs3 {
namespace {

// Read by the signal handler, so plain atomics in static memory. A slot is taken by its size and
// can be found once its base is set.
struct Slot {
  std::atomic<uintptr_t> base{0};
  std::atomic<size_t> size{0};
  std::atomic<bool> lost{false};
};
std::array<Slot, SharedMemory::kMappingsMax> slots;
std::atomic<size_t> slots_used{0};  // none beyond was ever taken
struct sigaction before;

// Calls `each(slot, base, size)` for the mappings that touch the range.
template <typename Each>
void for_each(uintptr_t address, size_t length, Each each) {
  size_t used = slots_used.load(std::memory_order_acquire);
  for (size_t i = 0; i < used; ++i) {
    uintptr_t base = slots[i].base.load(std::memory_order_acquire);
    size_t size = slots[i].size.load(std::memory_order_acquire);
    if (base == 0 || address >= base + size || address + length <= base) continue;
    each(slots[i], base, size);
  }
}

// Safe in a signal handler: atomics and mmap(2).
bool replace(uintptr_t address, size_t length) {
  bool found = false;
  for_each(address, length, [&](Slot& slot, uintptr_t base, size_t size) {
    slot.lost.store(true, std::memory_order_release);
    void* place = reinterpret_cast<void*>(base);
    void* made = mmap(place, size, PROT_READ | PROT_WRITE,
                      MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    found |= made == place;
  });
  return found;
}

void on_bus_error(int number, siginfo_t* info, void* context) {
  int kept = errno;
  bool ours = replace(reinterpret_cast<uintptr_t>(info->si_addr), 1);
  errno = kept;
  if (ours) return;
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  } else {
    signal(number, SIG_DFL);  // the access is repeated, and ends the process
  }
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
  });
}

// kMappingsMax: all are taken.
size_t take_slot(size_t size) {
  for (size_t i = 0; i < SharedMemory::kMappingsMax; ++i) {
    size_t free = 0;
    if (!slots[i].size.compare_exchange_strong(free, size)) continue;
    size_t used = slots_used.load();
    while (used <= i && !slots_used.compare_exchange_weak(used, i + 1)) {
    }
    return i;
  }
  return SharedMemory::kMappingsMax;
}

}  // namespace

Result<std::shared_ptr<SharedMemory>> SharedMemory::map(int fd, size_t size) {
  if (size == 0) return Status(EINVAL, "base/shared_memory", "the file is empty");
  install_handler();
  size_t slot = take_slot(size);
  if (slot == kMappingsMax) {
    return Status(ENOMEM, "base/shared_memory",
                  std::to_string(kMappingsMax) + " mappings are in use");
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    auto error = static_cast<uint32_t>(errno);
    slots[slot].size.store(0, std::memory_order_release);
    return Status(error, "base/shared_memory", std::string("mmap: ") + std::strerror(errno));
  }
  slots[slot].lost.store(false, std::memory_order_relaxed);
  slots[slot].base.store(reinterpret_cast<uintptr_t>(memory), std::memory_order_release);
  return std::shared_ptr<SharedMemory>(
      new SharedMemory(static_cast<std::byte*>(memory), size, slot));
}

SharedMemory::~SharedMemory() {
  slots[slot_].base.store(0, std::memory_order_release);
  munmap(data_, size_);
  slots[slot_].size.store(0, std::memory_order_release);
}

bool SharedMemory::lost() const { return slots[slot_].lost.load(std::memory_order_acquire); }

bool replace_lost_memory(const void* address, size_t length) {
  return replace(reinterpret_cast<uintptr_t>(address), length);
}

bool is_shared_memory(const void* address) {
  bool found = false;
  for_each(reinterpret_cast<uintptr_t>(address), 1,
           [&](Slot&, uintptr_t, size_t) { found = true; });
  return found;
}

}  // namespace fs3
