#include "base/buffer.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace fs3 {
namespace {

// Two classes per doubling (4 K, 8 K, 12 K, 16 K, 24 K, ... 6 M): at most a third of a block is
// unused, and a payload of the maximal size (4 MiB + 64 KiB) still comes from the pool.
constexpr size_t kSmallest = kBufferAlignment;
constexpr size_t kLargestPooled = 6u << 20;
constexpr size_t kClasses = 22;
// Free memory kept for reuse; what comes back beyond it goes to the system at once.
constexpr size_t kPooledBytesMax = 128u << 20;

constexpr size_t class_size(size_t index) {
  if (index == 0) return kSmallest;
  size_t base = kSmallest << ((index + 1) / 2);
  return index % 2 == 1 ? base : base / 2 * 3;
}
static_assert(class_size(1) == 8192 && class_size(2) == 12288 && class_size(3) == 16384);
static_assert(class_size(kClasses - 1) < kLargestPooled * 2);

constexpr size_t class_of(size_t size) {
  size_t index = 0;
  while (class_size(index) < size) ++index;
  return index;
}
static_assert(class_size(class_of(kLargestPooled)) == kLargestPooled);
static_assert(class_of(kLargestPooled) < kClasses);

size_t fast_class_of(size_t size) {
  if (size <= kSmallest) return 0;
  size_t doublings = std::bit_width((size - 1) / kSmallest);  // smallest power of two that fits
  size_t index = 2 * doublings - 1;
  // The class below the power of two is three quarters of it.
  return index > 1 && class_size(index - 1) >= size ? index - 1 : index;
}

}  // namespace

struct Buffer::Block {
  std::atomic<uint32_t> references{1};
  std::byte* memory = nullptr;
  size_t capacity = 0;
  void (*release)(void*) = nullptr;  // set: the memory belongs to somebody else
  void* context = nullptr;
  Block* next_free = nullptr;

  static Block* take(size_t size);
  static Block* make(size_t capacity);
  static void give_back(Block* block);
  static void free_owned(Block* block);
};

namespace {

// A free list per class, each with its own lock; kept for the life of the process because buffers
// may be dropped by destructors of static objects.
template <typename Block>
struct Pool {
  struct List {
    std::mutex mutex;
    Block* head = nullptr;
  };
  std::array<List, kClasses> lists;
  std::atomic<size_t> pooled_bytes{0};

  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  Block* pop(size_t index) {
    List& list = lists[index];
    std::lock_guard lock(list.mutex);
    Block* block = list.head;
    if (block == nullptr) return nullptr;
    list.head = block->next_free;
    pooled_bytes.fetch_sub(block->capacity, std::memory_order_relaxed);
    return block;
  }

  bool push(size_t index, Block* block) {
    size_t before = pooled_bytes.fetch_add(block->capacity, std::memory_order_relaxed);
    if (before + block->capacity > kPooledBytesMax) {
      pooled_bytes.fetch_sub(block->capacity, std::memory_order_relaxed);
      return false;
    }
    List& list = lists[index];
    std::lock_guard lock(list.mutex);
    block->next_free = list.head;
    list.head = block;
    return true;
  }
};

}  // namespace

Buffer::Block* Buffer::Block::make(size_t capacity) {
  void* memory = std::aligned_alloc(kBufferAlignment, capacity);
  FS3_CHECK(memory != nullptr);  // out of memory: no request can be finished honestly
  Block* block = new Block;
  block->memory = static_cast<std::byte*>(memory);
  block->capacity = capacity;
  return block;
}

Buffer::Block* Buffer::Block::take(size_t size) {
  FS3_CHECK(size <= SIZE_MAX - kBufferAlignment);
  if (size > kLargestPooled) {
    return make((size + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment);
  }
  size_t index = fast_class_of(size);
  Block* block = Pool<Block>::instance().pop(index);
  if (block == nullptr) return make(class_size(index));
  ASAN_UNPOISON_MEMORY_REGION(block->memory, block->capacity);
  block->references.store(1, std::memory_order_relaxed);
  return block;
}

void Buffer::Block::free_owned(Block* block) {
  ASAN_UNPOISON_MEMORY_REGION(block->memory, block->capacity);
  std::free(block->memory);
  delete block;
}

void Buffer::Block::give_back(Block* block) {
  if (block->release != nullptr) {
    block->release(block->context);
    delete block;
    return;
  }
  if (block->capacity <= kLargestPooled) {
    ASAN_POISON_MEMORY_REGION(block->memory, block->capacity);
    if (Pool<Block>::instance().push(fast_class_of(block->capacity), block)) return;
  }
  free_owned(block);
}

Buffer Buffer::allocate(size_t size) {
  Buffer buffer;
  buffer.block_ = Block::take(size);
  buffer.data_ = buffer.block_->memory;
  buffer.size_ = size;
  buffer.capacity_ = buffer.block_->capacity;
  return buffer;
}

Buffer Buffer::copy_of(const void* data, size_t size) {
  Buffer buffer = allocate(size);
  if (size > 0) std::memcpy(buffer.data_, data, size);
  return buffer;
}

Buffer Buffer::wrap(void* data, size_t size, void (*release)(void*), void* context) {
  FS3_CHECK(release != nullptr);
  Buffer buffer;
  buffer.block_ = new Block;
  buffer.block_->memory = static_cast<std::byte*>(data);
  buffer.block_->capacity = size;
  buffer.block_->release = release;
  buffer.block_->context = context;
  buffer.data_ = buffer.block_->memory;
  buffer.size_ = buffer.capacity_ = size;
  return buffer;
}

Buffer::Buffer(const Buffer& other)
    : block_(other.block_), data_(other.data_), size_(other.size_), capacity_(other.capacity_) {
  if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
}

Buffer::Buffer(Buffer&& other) noexcept
    : block_(std::exchange(other.block_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer other) noexcept {
  std::swap(block_, other.block_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

Buffer::~Buffer() {
  if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    Block::give_back(block_);
  }
}

Buffer Buffer::slice(size_t offset, size_t size) const {
  FS3_CHECK(offset <= capacity_ && size <= capacity_ - offset);
  Buffer part(*this);
  part.data_ += offset;
  part.size_ = size;
  part.capacity_ -= offset;
  return part;
}

void Buffer::resize(size_t size) {
  FS3_CHECK(size <= capacity_);
  size_ = size;
}

}  // namespace fs3
