// Buffer: a reference-counted, 4 KiB aligned piece of memory that travels from socket to disk
// without a copy.
//
// Thread safety: the count is atomic, so slices of one buffer may be held and dropped by different
// threads; the bytes themselves have one writer at a time by convention (whoever made the buffer,
// until it is handed on). Ownership: the last slice frees the memory into the pool it came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fs3 {

constexpr size_t kBufferAlignment = 4096;

class Buffer {
 public:
  Buffer() = default;  // empty
  // At least `size` bytes, address aligned to 4 KiB, capacity rounded up to 4 KiB; content
  // unspecified. Pooled by size class.
  static Buffer allocate(size_t size);
  static Buffer copy_of(const void* data, size_t size);
  // Memory owned by somebody else who outlives every slice (a registered region); `release` is
  // called with `context` at the end.
  static Buffer wrap(void* data, size_t size, void (*release)(void*), void* context);

  Buffer(const Buffer& other);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // Bytes that may be touched from data() on (>= size(); a multiple of 4 KiB for allocated buffers
  // when unsliced).
  size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  std::span<std::byte> span() const { return {data_, size_}; }
  // Shares the memory. REQUIRES: offset + size <= capacity().
  Buffer slice(size_t offset, size_t size) const;
  // Changes the length only. REQUIRES: size <= capacity().
  void resize(size_t size);

 private:
  struct Block;
  Block* block_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace fs3
