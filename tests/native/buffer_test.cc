#include "base/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

namespace fs3 {
namespace {

TEST(Buffer, IsAlignedAndRoundedUp) {
  for (size_t size : {0ul, 1ul, 4095ul, 4096ul, 4097ul, 8192ul, 12'289ul, 1ul << 20,
                      (4ul << 20) + (64ul << 10), 6ul << 20, (6ul << 20) + 1, 9'000'001ul}) {
    Buffer buffer = Buffer::allocate(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kBufferAlignment, 0u) << size;
    EXPECT_EQ(buffer.size(), size);
    EXPECT_GE(buffer.capacity(), size);
    EXPECT_EQ(buffer.capacity() % kBufferAlignment, 0u) << size;
    std::memset(buffer.data(), 0xab, buffer.capacity());
  }
}

TEST(Buffer, EverySizeFitsItsClassAndWastesLittle) {
  for (size_t size = 4096; size <= 6u << 20; size += 4096 * (1 + size / (1u << 16))) {
    Buffer buffer = Buffer::allocate(size);
    ASSERT_GE(buffer.capacity(), size);
    ASSERT_LE(buffer.capacity(), size + size / 2 + 4096);
  }
}

TEST(Buffer, ReusesFreedMemory) {
  std::byte* first;
  {
    Buffer buffer = Buffer::allocate(100'000);
    first = buffer.data();
  }
  Buffer again = Buffer::allocate(100'001);
  EXPECT_EQ(again.data(), first);
}

TEST(Buffer, SlicesKeepTheMemoryAlive) {
  Buffer slice;
  {
    Buffer buffer = Buffer::copy_of("hello, world", 12);
    slice = buffer.slice(7, 5);
  }
  EXPECT_EQ(std::memcmp(slice.data(), "world", 5), 0);
  EXPECT_EQ(slice.capacity(), 4096u - 7u);
  slice.resize(2);
  EXPECT_EQ(slice.size(), 2u);
}

TEST(Buffer, SliceMayReachBeyondTheLengthButNotTheCapacity) {
  Buffer buffer = Buffer::allocate(10);
  EXPECT_EQ(buffer.slice(0, 4096).size(), 4096u);
  EXPECT_DEATH(buffer.slice(1, 4096), "check failed");
  EXPECT_DEATH(buffer.slice(4097, 0), "check failed");
  EXPECT_DEATH(buffer.resize(4097), "check failed");
}

TEST(Buffer, WrapReleasesOnceAtTheEnd) {
  char memory[16] = "abc";
  int released = 0;
  {
    Buffer outer;
    {
      Buffer buffer =
          Buffer::wrap(memory, sizeof memory, [](void* p) { ++*static_cast<int*>(p); }, &released);
      outer = buffer.slice(1, 2);
    }
    EXPECT_EQ(released, 0);
    EXPECT_EQ(std::memcmp(outer.data(), "bc", 2), 0);
  }
  EXPECT_EQ(released, 1);
}

TEST(Buffer, AssignmentToItselfAndMoves) {
  Buffer buffer = Buffer::copy_of("x", 1);
  Buffer& same = buffer;
  buffer = same;
  EXPECT_EQ(buffer.size(), 1u);
  Buffer moved = std::move(buffer);
  EXPECT_EQ(moved.size(), 1u);
  EXPECT_TRUE(buffer.empty());  // NOLINT: a moved-from buffer is empty by contract
  EXPECT_EQ(buffer.data(), nullptr);
}

TEST(Buffer, SharedByThreads) {
  for (int round = 0; round < 200; ++round) {
    Buffer buffer = Buffer::allocate(8192);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([copy = buffer]() mutable { copy = Buffer::allocate(8192); });
    }
    for (auto& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace fs3
