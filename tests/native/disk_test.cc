// One conformance suite over every Disk, then what only the simulated one can show.
#include "disk/disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "disk/posix_disk.h"
#include "disk/sim_disk.h"
#include "reactor_harness.h"

namespace fs3::disk {
namespace {

using test::ReactorHarness;
using test::TemporaryDirectory;

Buffer filled(size_t size, int byte) {
  Buffer buffer = Buffer::allocate(size);
  buffer.resize(size);
  std::memset(buffer.data(), byte, size);
  return buffer;
}

Status write(ReactorHarness& harness, File& file, uint64_t offset, const Buffer& buffer) {
  return harness.wait<Status>([&](auto done) { file.write(offset, buffer, std::move(done)); });
}

Result<size_t> read(ReactorHarness& harness, File& file, uint64_t offset, const Buffer& buffer) {
  return harness.wait<Result<size_t>>(
      [&](auto done) { file.read(offset, buffer, std::move(done)); });
}

// The byte all of [offset, offset + size) has, or -1 when they differ.
int byte_at(ReactorHarness& harness, File& file, uint64_t offset, size_t size) {
  Buffer buffer = filled(size, 0xee);
  auto got = read(harness, file, offset, buffer);
  if (!got.ok() || *got != size) return -2;
  auto* bytes = reinterpret_cast<unsigned char*>(buffer.data());
  for (size_t i = 1; i < size; ++i) {
    if (bytes[i] != bytes[0]) return -1;
  }
  return bytes[0];
}

enum class Kind { kUringDirect, kUringBuffered, kThreads, kSimulated };

class DiskConformance : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { open(); }
  void TearDown() override {
    harness_.on([&] {
      file_.reset();
      disk_.reset();
    });
  }
  void open() {
    disk_ = harness_.on([&]() -> std::unique_ptr<Disk> {
      if (GetParam() == Kind::kSimulated) return open_sim_disk(harness_.reactor(), medium_);
      PosixDiskOptions options{.directory = directory_.path() + "/disk", .create = true};
      options.use_uring = GetParam() != Kind::kThreads;
      options.use_direct = GetParam() == Kind::kUringDirect;
      auto disk = open_posix_disk(harness_.reactor(), options);
      EXPECT_TRUE(disk.ok());
      return std::move(*disk);
    });
    auto file = harness_.on([&] { return disk_->open("file"); });
    ASSERT_TRUE(file.ok());
    file_ = std::move(*file);
  }

  TemporaryDirectory directory_;
  SimMedium medium_{1};
  ReactorHarness harness_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<File> file_;
};

TEST_P(DiskConformance, WhatWasWrittenIsRead) {
  ASSERT_OK(write(harness_, *file_, 8192, filled(12288, 7)));
  EXPECT_EQ(byte_at(harness_, *file_, 8192, 12288), 7);
  EXPECT_EQ(byte_at(harness_, *file_, 0, 8192), 0);  // a hole
  ASSERT_OK(write(harness_, *file_, 12288, filled(4096, 9)));
  EXPECT_EQ(byte_at(harness_, *file_, 8192, 4096), 7);
  EXPECT_EQ(byte_at(harness_, *file_, 12288, 4096), 9);
  EXPECT_EQ(*file_->size(), 20480u);
}

TEST_P(DiskConformance, ReadEndsAtTheEndOfTheFile) {
  ASSERT_OK(write(harness_, *file_, 0, filled(8192, 1)));
  auto got = read(harness_, *file_, 4096, filled(16384, 0));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(*got, 4096u);
  got = read(harness_, *file_, 1 << 20, filled(4096, 0));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(*got, 0u);
}

TEST_P(DiskConformance, AllocateMakesZerosAndLength) {
  auto status =
      harness_.wait<Status>([&](auto done) { file_->allocate(1 << 20, 1 << 20, std::move(done)); });
  ASSERT_OK(status);
  EXPECT_EQ(*file_->size(), uint64_t{2 << 20});
  EXPECT_EQ(byte_at(harness_, *file_, 1 << 20, 65536), 0);
}

TEST_P(DiskConformance, PunchZeroesAndKeepsTheLength) {
  ASSERT_OK(write(harness_, *file_, 0, filled(65536, 5)));
  auto status =
      harness_.wait<Status>([&](auto done) { file_->punch(4096, 8192, std::move(done)); });
  ASSERT_OK(status);
  EXPECT_EQ(byte_at(harness_, *file_, 0, 4096), 5);
  EXPECT_EQ(byte_at(harness_, *file_, 4096, 8192), 0);
  EXPECT_EQ(byte_at(harness_, *file_, 12288, 53248), 5);
  EXPECT_EQ(*file_->size(), 65536u);
}

TEST_P(DiskConformance, ManyAtOnce) {
  constexpr int kCount = 1000;  // more than the ring holds
  auto failures = harness_.wait<int>([&](auto done) {
    auto left = std::make_shared<int>(kCount);
    auto failed = std::make_shared<int>(0);
    auto shared = std::make_shared<Function<void(int)>>(std::move(done));
    for (int i = 0; i < kCount; ++i) {
      file_->write(static_cast<uint64_t>(i) * 4096, filled(4096, i % 251), [=](Status status) {
        *failed += !status.ok();
        if (--*left == 0) (*shared)(*failed);
      });
    }
  });
  EXPECT_EQ(failures, 0);
  for (int i = 0; i < kCount; i += 37) {
    EXPECT_EQ(byte_at(harness_, *file_, static_cast<uint64_t>(i) * 4096, 4096), i % 251);
  }
}

TEST_P(DiskConformance, CallbacksComeLater) {
  bool inside = harness_.wait<bool>([&](auto done) {
    auto in_call = std::make_shared<bool>(true);
    file_->write(0, filled(4096, 1),
                 [in_call, done = std::move(done)](Status) mutable { done(*in_call); });
    *in_call = false;
  });
  EXPECT_FALSE(inside);
}

TEST_P(DiskConformance, SyncsAndStatistics) {
  ASSERT_OK(write(harness_, *file_, 0, filled(4096, 1)));
  ASSERT_OK(harness_.wait<Status>([&](auto done) { file_->datasync(std::move(done)); }));
  ASSERT_OK(file_->datasync_now());
  ASSERT_OK(disk_->sync_directory(""));
  auto statistics = disk_->statistics();
  EXPECT_EQ(statistics.writes, 1u);
  EXPECT_EQ(statistics.written_bytes, 4096u);
  EXPECT_EQ(statistics.syncs, 2u);
  const char* method = GetParam() == Kind::kSimulated ? "simulated"
                       : GetParam() == Kind::kThreads ? "threads"
                                                      : "io_uring";
  EXPECT_EQ(statistics.method, method);
  auto space = disk_->space();
  ASSERT_TRUE(space.ok());
  EXPECT_GT(space->total_bytes, space->available_bytes / 2);
}

TEST_P(DiskConformance, SmallFiles) {
  EXPECT_EQ(disk_->read_small("absent", 100).status().code(), ENOENT);
  ASSERT_OK(disk_->write_small("small", "one"));
  ASSERT_OK(disk_->write_small("small", "three"));
  EXPECT_EQ(*disk_->read_small("small", 5), "three");
  EXPECT_EQ(disk_->read_small("small", 4).status().code(), EFBIG);
}

TEST_P(DiskConformance, ReopenFindsTheFile) {
  ASSERT_OK(write(harness_, *file_, 0, filled(4096, 3)));
  TearDown();
  open();
  EXPECT_EQ(byte_at(harness_, *file_, 0, 4096), 3);
}

TEST_P(DiskConformance, DestroyedWithWorkInFlight) {
  auto called = std::make_shared<std::atomic<int>>(0);
  harness_.on([&] {
    for (int i = 0; i < 64; ++i) {
      file_->write(static_cast<uint64_t>(i) * 65536, filled(65536, 1),
                   [called](Status) { ++*called; });
    }
    file_.reset();
    disk_.reset();
  });
  harness_.on([] {});  // what was posted meanwhile has run
  EXPECT_EQ(*called, 0);
}

INSTANTIATE_TEST_SUITE_P(AllDisks, DiskConformance,
                         testing::Values(Kind::kUringDirect, Kind::kUringBuffered, Kind::kThreads,
                                         Kind::kSimulated));

TEST(PosixDisk, MissingDirectoryIsNamed) {
  ReactorHarness harness;
  auto disk = harness.on([&] { return open_posix_disk(harness.reactor(), {"/nonexistent/disk"}); });
  ASSERT_FALSE(disk.ok());
  EXPECT_EQ(disk.status().code(), ENOENT);
  EXPECT_NE(disk.status().detail().find("/nonexistent/disk"), std::string_view::npos);
}

// ---- the simulated disk

class SimDiskTest : public testing::Test {
 protected:
  void open(SimMedium& medium) {
    disk_ = harness_.on([&] { return open_sim_disk(harness_.reactor(), medium); });
    auto file = disk_->open("file");
    ASSERT_TRUE(file.ok());
    file_ = std::move(*file);
  }
  void crash(SimMedium& medium) {
    medium.power_off();
    harness_.on([&] {
      file_.reset();
      disk_.reset();
    });
    medium.power_on();
    open(medium);
  }

  ReactorHarness harness_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<File> file_;
};

TEST_F(SimDiskTest, CrashForgetsAndTearsWhatWasNotSynced) {
  int torn = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SimMedium medium(seed);
    open(medium);
    ASSERT_OK(write(harness_, *file_, 0, filled(8192, 1)));
    ASSERT_OK(file_->datasync_now());
    ASSERT_OK(disk_->sync_directory(""));
    ASSERT_OK(write(harness_, *file_, 0, filled(8192, 2)));
    ASSERT_OK(write(harness_, *file_, 8192, filled(4096, 3)));
    crash(medium);
    EXPECT_EQ(*file_->size(), 8192u);  // the growth was not synced
    Buffer now = filled(8192, 0);
    ASSERT_TRUE(read(harness_, *file_, 0, now).ok());
    bool old_there = false, new_there = false;
    for (size_t sector = 0; sector < 16; ++sector) {
      auto* bytes = reinterpret_cast<char*>(now.data()) + sector * 512;
      ASSERT_TRUE(bytes[0] == 1 || bytes[0] == 2);
      ASSERT_EQ(std::string(bytes, 512), std::string(512, bytes[0]));  // sectors are whole
      (bytes[0] == 1 ? old_there : new_there) = true;
    }
    torn += old_there && new_there;
    harness_.on([&] {
      file_.reset();
      disk_.reset();
    });
  }
  EXPECT_GT(torn, 5);
}

TEST_F(SimDiskTest, CrashForgetsAFileWhoseDirectoryWasNotSynced) {
  SimMedium medium(7);
  open(medium);
  ASSERT_OK(write(harness_, *file_, 0, filled(4096, 1)));
  ASSERT_OK(file_->datasync_now());
  crash(medium);
  EXPECT_EQ(*file_->size(), 0u);
  harness_.on([&] {
    file_.reset();
    disk_.reset();
  });
}

TEST_F(SimDiskTest, FaultsHitWhatTheyName) {
  SimMedium medium(3);
  open(medium);
  medium.inject({SimFault::On::kWrite, "fi", 1, 1, EIO});
  medium.inject({SimFault::On::kRead, "other", 0, 1, EIO});
  EXPECT_OK(write(harness_, *file_, 0, filled(4096, 1)));
  EXPECT_EQ(write(harness_, *file_, 0, filled(4096, 2)).code(), uint32_t{EIO});
  EXPECT_OK(write(harness_, *file_, 0, filled(4096, 3)));
  EXPECT_EQ(byte_at(harness_, *file_, 0, 4096), 3);
  EXPECT_EQ(medium.faults_hit(), 1u);
  harness_.on([&] {
    file_.reset();
    disk_.reset();
  });
}

TEST_F(SimDiskTest, CapacityEndsAllocation) {
  SimMedium medium(3, 1 << 20);
  open(medium);
  auto allocate = [&](uint64_t offset, uint64_t length) {
    return harness_.wait<Status>(
        [&](auto done) { file_->allocate(offset, length, std::move(done)); });
  };
  EXPECT_OK(allocate(0, 1 << 19));
  EXPECT_EQ(allocate(1 << 19, 1 << 20).code(), uint32_t{ENOSPC});
  EXPECT_EQ(*file_->size(), uint64_t{1 << 19});
  EXPECT_OK(harness_.wait<Status>([&](auto done) { file_->punch(0, 1 << 19, std::move(done)); }));
  EXPECT_EQ(medium.allocated_bytes(), 0u);
  harness_.on([&] {
    file_.reset();
    disk_.reset();
  });
}

TEST_F(SimDiskTest, SameSeedSameOutcome) {
  auto run = [this](uint64_t seed) {
    SimMedium medium(seed);
    open(medium);
    EXPECT_OK(disk_->sync_directory(""));
    EXPECT_OK(write(harness_, *file_, 0, filled(65536, 1)));
    EXPECT_OK(file_->datasync_now());
    EXPECT_OK(write(harness_, *file_, 0, filled(65536, 2)));
    crash(medium);
    Buffer now = filled(65536, 0);
    EXPECT_TRUE(read(harness_, *file_, 0, now).ok());
    harness_.on([&] {
      file_.reset();
      disk_.reset();
    });
    return std::string(reinterpret_cast<char*>(now.data()), now.size());
  };
  EXPECT_EQ(run(11), run(11));
  EXPECT_NE(run(11), run(12));
}

}  // namespace
}  // namespace fs3::disk
