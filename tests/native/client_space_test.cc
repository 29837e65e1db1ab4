// Appends, holes, space and copies of the native client.
#include <fcntl.h>
#include <linux/falloc.h>

#include <cerrno>
#include <map>

#include "client/holes.h"
#include "client_user.h"

namespace fs3::client {
namespace {

constexpr uint32_t kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr uint32_t kZero = FALLOC_FL_ZERO_RANGE;

// ---- appends

TEST_F(ClientTest, AppendsAreReservedInBatches) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND);
  std::string all;
  for (int i = 0; i < 200; ++i) {
    std::string line = "line " + std::to_string(i) + "\n";
    ASSERT_EQ(user.append(file, line)->length, line.size());
    all += line;
  }
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == all);
  EXPECT_EQ(cluster.settled_size(), all.size());
  // The timer may have sent some before.
  EXPECT_LT(cluster.meta_calls(pm::APPEND), 100u);
  EXPECT_EQ(cluster.measures(), 0u);  // no hole was left
}

TEST_F(ClientTest, AppendsComeBehindWhatOthersHaveReserved) {
  cluster.set_size(10);
  cluster.put_chunk(0, "0123456789");
  auto file = user.open(cluster, O_RDWR | O_APPEND);
  EXPECT_EQ(cluster.reserve(5), 10u);
  EXPECT_EQ(user.append(file, "mine", AppendMode::kPlaced)->offset, 15u);
  ASSERT_TRUE(user.append(file, "!").ok());
  uint64_t size;
  int64_t mtime;
  ASSERT_TRUE(user.client->local_size(42, cluster.version(), &size, &mtime));
  EXPECT_EQ(size, 20u);
  EXPECT_EQ(cluster.reserve(3), 19u);
  EXPECT_TRUE(*user.read(file, 0, 100) ==
              "0123456789" + std::string(5, '\0') + "mine" + std::string(3, '\0') + "!");
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), 23u);
}

TEST_F(ClientTest, AWriteAtAnOffsetComesAfterTheAppendsBefore) {
  auto file = user.open(cluster, O_RDWR | O_APPEND);
  ASSERT_TRUE(user.append(file, "aaaa").ok());
  ASSERT_TRUE(user.write(file, 2, "bb", WriteAt::kOffset).ok());
  ASSERT_TRUE(user.append(file, "cc").ok());
  EXPECT_TRUE(*user.read(file, 0, 100) == "aabbcc");
  ASSERT_TRUE(user.write(file, 100, "far", WriteAt::kOffset).ok());
  EXPECT_EQ(user.append(file, "end", AppendMode::kPlaced)->offset, 103u);
}

TEST_F(ClientTest, ThePiecesOfOneWriteStayTogether) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND);
  ASSERT_TRUE(user.append(file, "first ", AppendMode::kMoreFollows).ok());
  // What asks for the place of the first piece waits for the second one.
  std::promise<Result<size_t>> read;
  std::string into(100, '?');
  auto reader = user.open(cluster, O_RDONLY);
  user.client->read(reader, 0, reinterpret_cast<std::byte*>(into.data()), into.size(),
                    [&](Result<size_t> got) { read.set_value(std::move(got)); });
  ASSERT_TRUE(user.append(file, "second").ok());
  EXPECT_EQ(*read.get_future().get(), 12u);
  EXPECT_EQ(cluster.meta_calls(pm::APPEND), 1u);
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == "first second");
}

TEST_F(ClientTest, APieceWhoseRestNeverComesIsPlacedAllTheSame) {
  auto file = user.open(cluster, O_RDWR | O_APPEND);
  ASSERT_TRUE(user.append(file, "alone", AppendMode::kMoreFollows).ok());
  EXPECT_TRUE(*user.read(file, 0, 100) == "alone");
}

// What is sent again after the process that made it died (fuse/handover.h).
TEST_F(ClientTest, ARepeatedAppendHasItsPlaceAgain) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND);
  Client::CallName name = user.client->new_call_name();
  ASSERT_TRUE(user.append(file, "lost ").ok());
  auto placed = wait_for<Result<Appended>>([&](auto done) {
    user.client->append(file, Buffer::copy_of("mine", 4), AppendMode::kPlaced, {name, false},
                        std::move(done));
  });
  EXPECT_EQ(placed->offset, 5u);
  EXPECT_EQ(cluster.reserve(3), 9u);
  Options others = cluster.options();
  others.client_id = kOtherId;
  User next(others);
  auto again = next.open(cluster, O_WRONLY | O_APPEND);
  EXPECT_EQ(next.append_again(again, "mine", name)->offset, 5u);
  // That process had not come to ask.
  EXPECT_EQ(next.append_again(again, "new", {kClientId, UINT64_MAX})->offset, 12u);
  ASSERT_TRUE(next.close(again).ok());
  EXPECT_EQ(cluster.settled_size(), 15u);
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == "lost mine" + std::string(3, '\0') + "new");
}

TEST_F(ClientTest, AFullQuotaStopsWhatMayTakeMore) {
  cluster.put_chunk(0, std::string(1000, 'x'));
  cluster.set_size(1000);
  cluster.set_quota(pm::QUOTA_FULL);
  auto file = user.open(cluster, O_RDWR);
  EXPECT_TRUE(user.write(file, 10, "over what is there").ok());
  EXPECT_EQ(user.write(file, 990, "beyond the end").status().code(), EDQUOT);
  EXPECT_EQ(user.append(file, "x").status().code(), EDQUOT);
  ASSERT_TRUE(user.close(file).ok());
  cluster.set_size(100 << 20);  // with holes: what is below the bytes is not known
  file = user.open(cluster, O_RDWR);
  EXPECT_EQ(user.write(file, 10, "maybe a hole").status().code(), EDQUOT);
  EXPECT_TRUE(user.fallocate(file, kPunch, 0, 500).ok());
  cluster.set_quota(pm::QUOTA_LIMITED);
  EXPECT_TRUE(user.write(file, 5000, "there is room again").ok());
  ASSERT_TRUE(user.close(file).ok());
}

TEST_F(ClientTest, AFileUnderALimitIsSettledAsItGrows) {
  cluster.set_quota(pm::QUOTA_LIMITED);
  auto file = user.open(cluster, O_RDWR);
  const std::string piece(4 << 20, 'p');
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(user.write(file, i * piece.size(), piece).ok());
  EXPECT_EQ(cluster.meta_calls(pm::SYNC), 0u);
  cluster.set_quota(pm::QUOTA_FULL);
  EXPECT_EQ(user.append(file, "one more").status().code(), EDQUOT);
  EXPECT_EQ(cluster.settled_size(), 16 * piece.size());
  ASSERT_TRUE(user.close(file).ok());
}

TEST_F(ClientTest, AnAppendWithoutAPlaceIsAnErrorOfItsHandle) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND);
  ASSERT_TRUE(user.append(file, "lost").ok());
  auto options = cluster.options();
  cluster.stop_meta();
  // The deadline of metadata calls is long; ending the client ends them.
  std::promise<Status> flushed;
  user.client->flush(file, [&](Status status) { flushed.set_value(std::move(status)); });
  user.client->shutdown();
  EXPECT_FALSE(flushed.get_future().get().ok());
}

TEST_F(ClientTest, ThroughAppendsWaitForTheirChains) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND | O_DSYNC);
  ASSERT_EQ(user.append(file, "now")->offset, 0u);
  EXPECT_TRUE(cluster.chunk(0) == "now");
  EXPECT_EQ(cluster.settled_size(), 3u);
  EXPECT_EQ(cluster.durable_syncs(), 1u);
}

TEST_F(ClientTest, SyncWritesAreDurableWithTheirLength) {
  auto file = user.open(cluster, O_WRONLY | O_SYNC);
  ASSERT_TRUE(user.write(file, 5, "now").ok());
  EXPECT_EQ(cluster.settled_size(), 8u);
  EXPECT_EQ(cluster.durable_syncs(), 1u);
}

TEST_F(ClientTest, FdatasyncWaitsForTheLogOnlyWhenTheLengthIsNew) {
  auto file = user.open(cluster);
  auto datasync = [&] {
    return wait_for<Status>([&](auto done) { user.client->fdatasync(file, std::move(done)); });
  };
  ASSERT_TRUE(user.write(file, 0, "0123456789").ok());
  ASSERT_TRUE(datasync().ok());
  EXPECT_EQ(cluster.durable_syncs(), 1u);
  ASSERT_TRUE(user.write(file, 3, "abc").ok());
  ASSERT_TRUE(datasync().ok());
  EXPECT_TRUE(cluster.chunk(0) == "012abc6789");
  EXPECT_EQ(cluster.durable_syncs(), 1u);
  EXPECT_EQ(cluster.meta_calls(pm::SYNC), 2u);  // others learn of the change all the same
  ASSERT_TRUE(user.write(file, 9, "end").ok());
  ASSERT_TRUE(datasync().ok());
  EXPECT_EQ(cluster.durable_syncs(), 2u);
  user.client->note_truncated(42, 5, cluster.version() + 1);
  ASSERT_TRUE(datasync().ok());
  EXPECT_EQ(cluster.durable_syncs(), 3u);
}

// ---- holes

// Every byte of a small file against a map of what exists: storage, dirty, both.
TEST_F(ClientTest, SeekFindsEveryEdge) {
  cluster.put_chunk(1, pattern(kChunk, 1));
  cluster.put_chunk(2, pattern(100, 2));
  cluster.put_chunk(4, pattern(kChunk, 3));
  cluster.put_chunk(5, pattern(kChunk, 4));
  cluster.put_chunk(6, pattern(kChunk, 5));
  cluster.put_chunk(900, pattern(7, 6));
  const uint64_t size = 1000ull * kChunk;
  cluster.set_size(size);
  auto file = user.open(cluster);
  hold_writes(true);
  ASSERT_TRUE(user.write(file, 2 * kChunk + 100, "touches").ok());
  ASSERT_TRUE(user.write(file, 3 * kChunk - 9, "b").ok());
  ASSERT_TRUE(user.write(file, 8 * kChunk + 5, "dirty").ok());
  std::map<uint64_t, uint64_t> data{{kChunk, 2 * kChunk + 107},
                                    {3 * kChunk - 9, 3 * kChunk - 8},
                                    {4 * kChunk, 7 * kChunk},
                                    {8 * kChunk + 5, 8 * kChunk + 10},
                                    {900ull * kChunk, 900ull * kChunk + 7}};
  uint64_t at = 0;
  for (auto [begin, end] : data) {
    EXPECT_EQ(*user.seek(file, at, SeekFor::kData), begin);
    EXPECT_EQ(*user.seek(file, at, SeekFor::kHole), at);
    EXPECT_EQ(*user.seek(file, begin, SeekFor::kData), begin);
    EXPECT_EQ(*user.seek(file, begin, SeekFor::kHole), end);
    EXPECT_EQ(*user.seek(file, end - 1, SeekFor::kHole), end);
    at = end;
  }
  EXPECT_EQ(user.seek(file, at, SeekFor::kData).status().code(), uint32_t{ENXIO});
  EXPECT_EQ(*user.seek(file, at, SeekFor::kHole), at);
  EXPECT_EQ(user.seek(file, size, SeekFor::kHole).status().code(), uint32_t{ENXIO});
  // Sent and settled, the answers are the same.
  hold_writes(false);
  ASSERT_TRUE(user.fsync(file).ok());
  EXPECT_EQ(*user.seek(file, 7 * kChunk, SeekFor::kData), 8 * kChunk);  // told by the chunk
  EXPECT_EQ(*user.seek(file, kChunk, SeekFor::kHole), 3 * kChunk - 8);
}

TEST_F(ClientTest, TheEndOfTheFileIsAHole) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, pattern(2 * kChunk + 10, 1)).ok());
  EXPECT_EQ(*user.seek(file, 0, SeekFor::kHole), 2 * kChunk + 10);
  EXPECT_EQ(*user.seek(file, 5, SeekFor::kData), 5u);
}

TEST(ChunkMapTest, RunsOfThreePositions) {
  ChunkMap map(3, 100);
  map.add({{{0, 4, 100}, {15, 1, 7}}, UINT64_MAX});  // 0 3 6 9, 15
  map.add({{{1, 2, 50}}, 40});                       // 1 4
  map.add({{{2, 10, 100}}, UINT64_MAX});             // 2 5 .. 29
  EXPECT_EQ(map.through(), 40u);
  EXPECT_EQ(map.next(0)->index, 0u);
  EXPECT_EQ(map.next(4)->length, 50u);
  EXPECT_EQ(map.next(7)->index, 8u);
  EXPECT_EQ(map.next(15)->length, 7u);
  EXPECT_FALSE(map.next(30).has_value());
  EXPECT_EQ(map.end_of_whole(0), 4u);
  EXPECT_EQ(map.end_of_whole(2), 4u);
  EXPECT_EQ(map.end_of_whole(5), 7u);
  EXPECT_EQ(map.end_of_whole(7), 7u);
}

TEST_F(ClientTest, ReadsOfHolesAskWhichChunksThereAre) {
  cluster.put_chunk(100, pattern(kChunk, 1));
  cluster.put_chunk(500, pattern(10, 2));
  cluster.set_size(1000ull * kChunk);
  auto file = user.open(cluster);
  hold_writes(true);
  ASSERT_TRUE(user.write(file, 300ull * kChunk + 5, "dirty").ok());
  std::string expected(1000 * kChunk, '\0');
  expected.replace(100 * kChunk, kChunk, pattern(kChunk, 1));
  expected.replace(500 * kChunk, 10, pattern(10, 2));
  expected.replace(300 * kChunk + 5, 5, "dirty");
  EXPECT_TRUE(*user.read(file, 0, expected.size()) == expected);
  EXPECT_EQ(cluster.reads(), 2u);
  EXPECT_EQ(cluster.queries(), 2u);  // one per chain
  hold_writes(false);
}

// ---- fallocate

TEST_F(ClientTest, AReadMayRefuseHoles) {
  constexpr uint64_t kChunks = 40;  // enough that it asks where they are
  cluster.set_size(kChunks * kChunk);
  cluster.put_chunk(3, std::string(kChunk, 'x'));
  auto file = user.open(cluster, O_RDONLY);
  std::string into(kChunks * kChunk, '?');
  auto read = [&](uint64_t offset, size_t length) {
    return wait_for<Result<size_t>>([&](auto done) {
      user.client->read(file, offset, reinterpret_cast<std::byte*>(into.data()), length,
                        std::move(done), Holes::kRefuse);
    });
  };
  EXPECT_EQ(read(0, into.size()).status().code(), ENODATA);
  EXPECT_EQ(read(4 * kChunk, 30 * kChunk).status().code(), ENODATA);
  EXPECT_EQ(*read(3 * kChunk, kChunk), kChunk);
}

TEST_F(ClientTest, PunchedChunksAreGoneAndTheRestIsZero) {
  auto file = user.open(cluster);
  std::string bytes = pattern(6 * kChunk, 1);
  ASSERT_TRUE(user.write(file, 0, bytes).ok());
  ASSERT_TRUE(user.fallocate(file, kPunch, kChunk - 10, 3 * kChunk + 20).ok());
  std::fill_n(bytes.begin() + kChunk - 10, 3 * kChunk + 20, '\0');
  EXPECT_TRUE(*user.read(file, 0, bytes.size()) == bytes);
  EXPECT_EQ(cluster.chunk_count(), 3u);
  EXPECT_EQ(cluster.settled_size(), bytes.size());
  EXPECT_EQ(cluster.measures(), 1u);
  EXPECT_EQ(*user.seek(file, 0, SeekFor::kHole), kChunk);
  // What is written into the hole afterwards is there.
  ASSERT_TRUE(user.write(file, 2 * kChunk, "back").ok());
  EXPECT_TRUE(*user.read(file, 2 * kChunk, 5) == std::string("back\0", 5));
}

TEST_F(ClientTest, PunchingBeyondTheEndChangesNoLength) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, pattern(100, 1)).ok());
  ASSERT_TRUE(user.fallocate(file, kPunch, 50, 10 * kChunk).ok());
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), 100u);
  EXPECT_TRUE(cluster.chunk(0) == pattern(100, 1).substr(0, 50) + std::string(50, '\0'));
}

TEST_F(ClientTest, ZeroRangeAndAllocationMakeTheFileLonger) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "0123456789").ok());
  ASSERT_TRUE(user.fallocate(file, kZero | FALLOC_FL_KEEP_SIZE, 5, 100).ok());
  EXPECT_TRUE(*user.read(file, 0, 1000) == "01234" + std::string(5, '\0'));
  ASSERT_TRUE(user.fallocate(file, kZero, 2, 18).ok());
  EXPECT_TRUE(*user.read(file, 0, 1000) == "01" + std::string(18, '\0'));
  ASSERT_TRUE(user.fallocate(file, 0, 0, 30).ok());
  EXPECT_EQ(user.read(file, 0, 1000)->size(), 30u);
  ASSERT_TRUE(user.fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 300).ok());
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), 30u);
}

TEST_F(ClientTest, WhatFallocateRefuses) {
  auto file = user.open(cluster);
  auto code = [&](uint32_t mode, uint64_t offset, uint64_t length) {
    return user.fallocate(file, mode, offset, length).code();
  };
  EXPECT_EQ(code(FALLOC_FL_COLLAPSE_RANGE, 0, kChunk), uint32_t{EOPNOTSUPP});
  EXPECT_EQ(code(FALLOC_FL_INSERT_RANGE, 0, kChunk), uint32_t{EOPNOTSUPP});
  EXPECT_EQ(code(FALLOC_FL_UNSHARE_RANGE, 0, kChunk), uint32_t{EOPNOTSUPP});
  EXPECT_EQ(code(FALLOC_FL_PUNCH_HOLE, 0, kChunk), uint32_t{EOPNOTSUPP});
  EXPECT_EQ(code(0, 0, 0), uint32_t{EINVAL});
  EXPECT_EQ(code(0, 1ull << 62, 1), uint32_t{EFBIG});
  EXPECT_EQ(code(0, 5, UINT64_MAX), uint32_t{EFBIG});
  auto reader = user.open(cluster, O_RDONLY);
  EXPECT_EQ(user.fallocate(reader, 0, 0, 1).code(), uint32_t{EBADF});
}

// A punch and writes into the same chunks at the same time: each byte is old, new or zero, and the
// next flush says nothing wrong.
TEST_F(ClientTest, PunchesBesideWriters) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, std::string(4 * kChunk, 'o')).ok());
  ASSERT_TRUE(user.flush(file).ok());
  std::atomic<int> count{0};
  cluster.on_storage(
      [&](uint16_t, size_t) { return count.fetch_add(1) % 2 == 0 ? Fault::kDelay : Fault::kNone; });
  std::promise<Status> punched;
  user.client->fallocate(file, kPunch, 0, 4 * kChunk,
                         [&](Status status) { punched.set_value(std::move(status)); });
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(user.write(file, (i % 4) * kChunk + 100, std::string(200, 'n')).ok());
    if (i % 5 == 0) {
      ASSERT_TRUE(user.flush(file).ok());
    }
  }
  EXPECT_TRUE(punched.get_future().get().ok());
  ASSERT_TRUE(user.write(file, 100, std::string(200, 'n')).ok());
  ASSERT_TRUE(user.flush(file).ok());
  std::string bytes = *user.read(file, 0, 4 * kChunk);
  EXPECT_TRUE(bytes.substr(100, 200) == std::string(200, 'n'));
  EXPECT_EQ(bytes.find_first_not_of(std::string("n\0", 2)), std::string::npos);
}

// ---- copies

TEST_F(ClientTest, CopiesDataAndHoles) {
  auto file = user.open(cluster);
  std::string bytes(20 * kChunk, '\0');
  auto put = [&](uint64_t offset, const std::string& piece) {
    ASSERT_TRUE(user.write(file, offset, piece).ok());
    bytes.replace(offset, piece.size(), piece);
  };
  put(100, pattern(2 * kChunk, 1));
  put(6 * kChunk + 5, pattern(1000, 2));
  put(10 * kChunk, pattern(3 * kChunk, 3));
  put(20 * kChunk - 1, "e");
  ASSERT_TRUE(user.flush(file).ok());
  auto copy = [&](uint64_t from, uint64_t to, uint64_t length, uint64_t copied) {
    ASSERT_EQ(*user.copy(file, from, file, to, length), copied);
    if (bytes.size() < to + copied) bytes.resize(to + copied);
    bytes.replace(to, copied, bytes.substr(from, copied));
    ASSERT_TRUE(*user.read(file, 0, bytes.size() + 1) == bytes);
  };
  copy(0, 10 * kChunk + 7, 8 * kChunk, 8 * kChunk);  // holes over data
  copy(50, 20 * kChunk, 3 * kChunk, 3 * kChunk);     // behind the end
  copy(4 * kChunk, 30 * kChunk, kChunk, kChunk);     // a hole behind the end
  copy(31 * kChunk - 5, 0, 100, 5);                  // to the end of the source
  copy(31 * kChunk, 0, 100, 0);
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), bytes.size());
}

TEST_F(ClientTest, WhatCopiesRefuse) {
  cluster.set_size(1000);
  auto file = user.open(cluster);
  auto reader = user.open(cluster, O_RDONLY);
  auto appender = user.open(cluster, O_RDWR | O_APPEND);
  EXPECT_EQ(user.copy(file, 0, file, 50, 51).status().code(), uint32_t{EINVAL});
  EXPECT_EQ(user.copy(file, 50, reader, 0, 1).status().code(), uint32_t{EBADF});
  EXPECT_EQ(user.copy(file, 50, appender, 0, 1).status().code(), uint32_t{EBADF});
  EXPECT_EQ(user.copy(file, 0, file, UINT64_MAX, 1).status().code(), uint32_t{EFBIG});
}

// ---- everything at once

struct ModelRun {
  uint64_t seed;
  uint64_t write_back_bytes;
};

class SpaceModelTest : public testing::TestWithParam<ModelRun> {};

// Random operations by one user against an image, while replies get lost and delayed. What is
// called a hole must be zeros.
TEST_P(SpaceModelTest, EveryOperationAgreesWithTheImage) {
  constexpr int kSteps = 12'000;
  constexpr uint64_t kSpan = 6 * kChunk;
  auto [seed, write_back_bytes] = GetParam();
  FakeCluster cluster;
  auto options = cluster.options();
  options.write_back_bytes = write_back_bytes;
  User user(options);
  std::mt19937_64 random(seed);
  cluster.on_storage([faults = std::mt19937_64(seed + 1)](uint16_t, size_t) mutable {
    uint64_t fault = faults() % 200;
    return fault == 0 ? Fault::kDropReply : fault < 4 ? Fault::kDelay : Fault::kNone;
  });
  auto file = user.open(cluster);
  auto appender = user.open(cluster, O_WRONLY | O_APPEND);
  std::string image;
  auto put = [&](uint64_t offset, const std::string& bytes) {
    if (image.size() < offset + bytes.size()) image.resize(offset + bytes.size());
    image.replace(offset, bytes.size(), bytes);
  };
  auto zero = [&](uint64_t offset, uint64_t length) {
    for (uint64_t at = offset; at < std::min(offset + length, image.size()); ++at) image[at] = 0;
  };
  for (int step = 0; step < kSteps; ++step) {
    uint64_t offset = random() % kSpan;
    uint64_t length = 1 + random() % (random() % 8 == 0 ? 3 * kChunk : 3000);
    std::string where = "seed " + std::to_string(seed) + " step " + std::to_string(step) + " [" +
                        std::to_string(offset) + ", +" + std::to_string(length) + ")";
    uint64_t action = random() % 16;
    if (std::getenv("FS3_TRACE") != nullptr) {
      std::fprintf(stderr, "%llu %s image %zu\n", static_cast<unsigned long long>(action),
                   where.c_str(), image.size());
    }
    switch (action) {
      case 0:
      case 1:
      case 2: {
        std::string bytes = pattern(length, random());
        ASSERT_EQ(*user.write(file, offset, bytes), length) << where;
        put(offset, bytes);
        break;
      }
      case 3:
      case 4: {
        if (image.size() > kSpan) break;
        std::string bytes = pattern(length % 500 + 1, random());
        ASSERT_TRUE(user.append(appender, bytes).ok()) << where;
        put(image.size(), bytes);
        break;
      }
      case 5: {
        ASSERT_TRUE(user.fallocate(file, kPunch, offset, length).ok()) << where;
        zero(offset, length);
        break;
      }
      case 6: {
        bool keep = random() % 2;
        uint32_t mode = kZero | (keep ? FALLOC_FL_KEEP_SIZE : 0);
        ASSERT_TRUE(user.fallocate(file, mode, offset, length).ok()) << where;
        zero(offset, length);
        if (!keep) image.resize(std::max<uint64_t>(image.size(), offset + length));
        break;
      }
      case 7: {
        uint64_t to = random() % kSpan;
        if (offset < to + length && to < offset + length) break;
        auto copied = user.copy(file, offset, file, to, length);
        uint64_t there = offset < image.size() ? std::min(length, image.size() - offset) : 0;
        ASSERT_EQ(*copied, there) << where;
        if (there > 0) put(to, image.substr(offset, there));
        break;
      }
      case 8: {
        auto data = user.seek(file, offset, SeekFor::kData);
        auto hole = user.seek(file, offset, SeekFor::kHole);
        ASSERT_EQ(hole.ok(), offset < image.size()) << where;
        if (!hole.ok()) break;
        uint64_t begins = data.ok() ? *data : image.size();
        for (uint64_t at = offset; at < begins; ++at) ASSERT_EQ(image[at], 0) << where << at;
        ASSERT_TRUE(*hole == image.size() || image[*hole] == 0) << where << *hole;
        ASSERT_TRUE(begins == offset || *hole == offset) << where;
        break;
      }
      case 9: {
        if (random() % 4 != 0) break;
        ASSERT_TRUE(user.settle().ok()) << where;
        cluster.truncate(offset);
        user.client->note_truncated(42, offset, cluster.version());
        image.resize(offset);
        break;
      }
      case 10:
        ASSERT_TRUE((random() % 2 ? user.fsync(file) : user.flush(appender)).ok()) << where;
        break;
      default: {
        auto got = user.read(file, offset, length);
        ASSERT_TRUE(got.ok()) << where << got.status().to_string();
        std::string expected = offset < image.size() ? image.substr(offset, length) : "";
        size_t at =
            std::mismatch(got->begin(), got->end(), expected.begin(), expected.end()).first -
            got->begin();
        ASSERT_TRUE(*got == expected) << where << " got " << got->size() << ", wanted "
                                      << expected.size() << ", differs at " << offset + at;
      }
    }
  }
  ASSERT_TRUE(user.close(file).ok());
  ASSERT_TRUE(user.close(appender).ok());
  EXPECT_EQ(cluster.settled_size(), image.size());
  auto again = user.open(cluster, O_RDONLY);
  EXPECT_TRUE(*user.read(again, 0, 3 * kSpan) == image);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SpaceModelTest,
                         testing::Values(ModelRun{1, 4u << 20}, ModelRun{2, 2 * kChunk},
                                         ModelRun{3, 0}, ModelRun{4, 1u << 20}, ModelRun{5, 1},
                                         ModelRun{6, 3 * kChunk}));

TEST_F(ClientTest, SyncAllSettlesEveryFile) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "abc").ok());
  ASSERT_TRUE(user.sync_all().ok());
  EXPECT_EQ(cluster.settled_size(), 3u);
  EXPECT_EQ(cluster.durable_syncs(), 1u);
}

}  // namespace
}  // namespace fs3::client
