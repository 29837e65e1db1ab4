// What the engine promises while nothing goes wrong, and what it refuses.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <thread>

#include "engine/checksum.h"
#include "engine/dedup_rows.h"
#include "engine_harness.h"

namespace fs3::test {
namespace {

constexpr uint32_t kKiB = 1 << 10;
constexpr uint32_t kMiB = 1 << 20;
constexpr ChunkId kChunk{5, 0};

enum class On { kPosix, kPosixFolding, kSimulated };

// Each test runs on a real directory, also with a folder that never rests, and on a simulated disk,
// and ends in an audit, before and after a restart.
class EngineTest : public testing::TestWithParam<On> {
 protected:
  EngineTest() : world_(GetParam() == On::kSimulated ? &medium_ : nullptr) {
    if (GetParam() == On::kPosixFolding) world_.set_patches(kTinyPatches);
  }
  void SetUp() override { world_.start(); }
  void TearDown() override {
    if (!world_.is_open() || world_.engine().failed()) return;
    EXPECT_OK(world_.audit());
    world_.close();
    ASSERT_OK(world_.open());
    EXPECT_OK(world_.audit());
  }
  void expect_content(ChunkId chunk, const std::string& expected) {
    EXPECT_TRUE(world_.content(chunk) == expected);
    auto state = world_.get(chunk);
    ASSERT_TRUE(state.has_value());
    EXPECT_EQ(state->committed.length, expected.size());
    EXPECT_EQ(state->committed.checksum, crc32c(0, expected.data(), expected.size()));
  }

  disk::SimMedium medium_{99};
  EngineWorld world_;
};

std::string name_of(const testing::TestParamInfo<On>& info) {
  if (info.param == On::kSimulated) return "simulated";
  return info.param == On::kPosixFolding ? "folding" : "posix";
}

INSTANTIATE_TEST_SUITE_P(Disks, EngineTest,
                         testing::Values(On::kPosix, On::kPosixFolding, On::kSimulated), name_of);

TEST_P(EngineTest, WriteAndRead) {
  std::string data = pattern(kMiB, 1);
  auto result = world_.write(kChunk, 0, data);
  ASSERT_OK(result.status());
  EXPECT_EQ(result->chunk_length, kMiB);
  EXPECT_EQ(result->checksum, crc32c(0, data.data(), data.size()));
  expect_content(kChunk, data);
  auto part = world_.read(kChunk, 4095, 8194);
  ASSERT_OK(part.status());
  EXPECT_TRUE(string_of(part->data) == data.substr(4095, 8194));
  EXPECT_EQ(part->version, 1u);
  EXPECT_EQ(part->chunk_length, kMiB);
}

TEST_P(EngineTest, ReadsAreShortAtTheEnd) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(5000, 1)).status());
  EXPECT_TRUE(string_of(world_.read(kChunk, 4990, 100)->data) == pattern(5000, 1).substr(4990));
  EXPECT_EQ(world_.read(kChunk, 5000, 100)->data.size(), 0u);
  EXPECT_EQ(world_.read(kChunk, 1 << 30, 100)->data.size(), 0u);
  auto missing = world_.read({6, 0}, 0, 100);
  ASSERT_OK(missing.status());
  EXPECT_EQ(missing->version, 0u);
  EXPECT_EQ(missing->chunk_length, 0u);
  EXPECT_EQ(world_.read(kChunk, 0, 100, true)->version, 0u);  // nothing pending
}

TEST_P(EngineTest, OverwritesKeepTheRest) {
  std::string model = pattern(300 * kKiB + 77, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  struct Case {
    uint32_t offset, size;
  };
  uint32_t seed = 2;
  for (Case c : {Case{0, 4096}, Case{4096, 4096}, Case{1, 1}, Case{4095, 2}, Case{100000, 150001},
                 Case{300 * kKiB, 77}, Case{300 * kKiB + 76, 5}, Case{0, 301 * kKiB},
                 Case{8192, 65536}, Case{299 * kKiB, 3000}}) {
    std::string data = pattern(c.size, ++seed);
    if (model.size() < c.offset + c.size) model.resize(c.offset + c.size);
    model.replace(c.offset, c.size, data);
    ASSERT_OK(world_.write(kChunk, c.offset, data).status());
    expect_content(kChunk, model);
  }
}

TEST_P(EngineTest, AppendsInPlaceAndAcrossSizeClasses) {
  std::string model;
  for (uint32_t i = 0; i < 120; ++i) {
    std::string data = pattern(i * 37 % 5000 + 1, i);
    ASSERT_OK(world_.write(kChunk, static_cast<uint32_t>(model.size()), data).status());
    model += data;
  }
  expect_content(kChunk, model);
  // Doubling blocks: what was copied stays below a small multiple of the whole.
  EXPECT_LT(world_.statistics().copied_bytes, 3 * model.size() + 120 * 4096);
}

TEST_P(EngineTest, AppendInPlaceUsesTheSameBlock) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(600 * kKiB + 10, 1)).status());
  uint64_t used = world_.space().used_bytes;
  uint64_t copied = world_.statistics().copied_bytes;
  ASSERT_OK(world_.write(kChunk, 600 * kKiB + 10, pattern(20000, 2)).status());
  EXPECT_EQ(world_.space().used_bytes, used);
  EXPECT_EQ(world_.statistics().copied_bytes - copied, 4096u);
  expect_content(kChunk, pattern(600 * kKiB + 10, 1) + pattern(20000, 2));
}

TEST_P(EngineTest, GapsReadAsZeros) {
  ASSERT_OK(world_.write(kChunk, 10000, "abc").status());
  expect_content(kChunk, std::string(10000, '\0') + "abc");
  ASSERT_OK(world_.write(kChunk, 70000, "def").status());
  expect_content(kChunk, std::string(10000, '\0') + "abc" + std::string(59997, '\0') + "def");
  ASSERT_OK(world_.write(kChunk, 70010, "x").status());  // a gap inside the block, in place
  expect_content(kChunk, std::string(10000, '\0') + "abc" + std::string(59997, '\0') + "def" +
                             std::string(7, '\0') + "x");
}

TEST_P(EngineTest, TruncateCutsAndExtends) {
  std::string model = pattern(200 * kKiB + 5, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  for (uint32_t length : {200 * kKiB, 190 * kKiB + 1, 130 * kKiB, 300 * kKiB + 3, 250 * kKiB, 5000u,
                          4096u, 100u, 40000u, 100u, 1u << 26, 99u}) {
    model.resize(length);
    auto result = world_.truncate(kChunk, length);
    ASSERT_OK(result.status());
    EXPECT_EQ(result->chunk_length, length);
    expect_content(kChunk, model);
  }
  ASSERT_OK(world_.truncate(kChunk, 0).status());
  expect_content(kChunk, "");
  EXPECT_EQ(world_.space().used_bytes, 0u);
  EXPECT_EQ(world_.space().chunks, 1u);  // the row stays
  ASSERT_OK(world_.truncate(kChunk, 5000).status());
  expect_content(kChunk, std::string(5000, '\0'));
  ASSERT_OK(world_.write(kChunk, 4999, "zz").status());
  expect_content(kChunk, std::string(4999, '\0') + "zz");
}

TEST_P(EngineTest, WriteAfterLogicalExtension) {
  ASSERT_OK(world_.write(kChunk, 0, "abc").status());
  ASSERT_OK(world_.truncate(kChunk, 100000).status());
  ASSERT_OK(world_.write(kChunk, 50000, "mid").status());
  std::string model = "abc";
  model.resize(100000);
  model.replace(50000, 3, "mid");
  expect_content(kChunk, model);
  EXPECT_TRUE(string_of(world_.read(kChunk, 49999, 30000)->data) == model.substr(49999, 30000));
}

TEST_P(EngineTest, TruncatedBytesDoNotComeBack) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(60000, 1)).status());
  ASSERT_OK(world_.truncate(kChunk, 50001).status());
  ASSERT_OK(world_.truncate(kChunk, 60000).status());
  expect_content(kChunk, pattern(60000, 1).substr(0, 50001) + std::string(9999, '\0'));
  ASSERT_OK(world_.write(kChunk, 55000, "x").status());
  std::string model = pattern(60000, 1).substr(0, 50001) + std::string(9999, '\0');
  model[55000] = 'x';
  expect_content(kChunk, model);
}

TEST_P(EngineTest, ReplaceMaySkipVersions) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(9000, 1)).status());
  auto request = world_.request(UpdateKind::kReplace, kChunk, 17, 0, pattern(100, 2));
  ASSERT_OK(world_.stage(std::move(request)).status());
  expect_content(kChunk, pattern(9000, 1));
  EXPECT_TRUE(world_.content(kChunk, true) == pattern(100, 2));
  ASSERT_OK(world_.commit(kChunk, 17));
  expect_content(kChunk, pattern(100, 2));
  EXPECT_EQ(world_.version(kChunk), 17u);
}

TEST_P(EngineTest, PendingIsSeparateUntilCommit) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(9000, 1)).status());
  auto request = world_.request(UpdateKind::kWrite, kChunk, 2, 4000, pattern(3000, 2));
  UpdateIdentity identity = request.identity;
  ASSERT_OK(world_.stage(std::move(request)).status());
  expect_content(kChunk, pattern(9000, 1));
  auto state = world_.get(kChunk);
  ASSERT_TRUE(state->pending.has_value());
  EXPECT_EQ(state->pending->version, 2u);
  EXPECT_EQ(state->pending->chain_version, 3u);
  EXPECT_EQ(state->pending->kind, UpdateKind::kWrite);
  EXPECT_EQ(state->pending->identity, identity);
  std::string model = pattern(9000, 1);
  model.replace(4000, 3000, pattern(3000, 2));
  EXPECT_TRUE(world_.content(kChunk, true) == model);
  EXPECT_EQ(world_.commit(kChunk, 3).code(), kMissingBase);
  ASSERT_OK(world_.commit(kChunk, 2, false));
  expect_content(kChunk, model);
  EXPECT_FALSE(world_.get(kChunk)->pending.has_value());
  ASSERT_OK(world_.commit(kChunk, 2));  // again: nothing to do
}

TEST_P(EngineTest, NewPendingReplacesTheOlder) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(9000, 1)).status());
  for (uint32_t seed = 2; seed < 6; ++seed) {  // the first would append in place
    auto request = world_.request(UpdateKind::kWrite, kChunk, 2, 9000, pattern(3000, seed));
    ASSERT_OK(world_.stage(std::move(request)).status());
    EXPECT_TRUE(world_.content(kChunk, true) == pattern(9000, 1) + pattern(3000, seed));
  }
  ASSERT_OK(world_.commit(kChunk, 2));
  expect_content(kChunk, pattern(9000, 1) + pattern(3000, 5));
}

TEST_P(EngineTest, DiscardForgetsThePending) {
  ASSERT_OK(world_.stage(world_.request(UpdateKind::kWrite, kChunk, 1, 0, "one")).status());
  ASSERT_OK(world_.discard(kChunk));
  EXPECT_FALSE(world_.get(kChunk).has_value());
  EXPECT_EQ(world_.space().used_bytes, 0u);
  ASSERT_OK(world_.write(kChunk, 0, pattern(5000, 1)).status());
  ASSERT_OK(world_.stage(world_.request(UpdateKind::kWrite, kChunk, 2, 5000, "appended")).status());
  ASSERT_OK(world_.discard(kChunk));
  ASSERT_OK(world_.discard(kChunk));
  expect_content(kChunk, pattern(5000, 1));
  // The place past the end was written once; the next append must not trust it.
  ASSERT_OK(world_.write(kChunk, 5000, "other").status());
  expect_content(kChunk, pattern(5000, 1) + "other");
}

TEST_P(EngineTest, RemoveAtCommit) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(5000, 1)).status());
  ASSERT_OK(world_.stage(world_.request(UpdateKind::kRemove, kChunk, 2, 0, "")).status());
  expect_content(kChunk, pattern(5000, 1));
  ASSERT_OK(world_.commit(kChunk, 2));
  EXPECT_FALSE(world_.get(kChunk).has_value());
  EXPECT_EQ(world_.space().used_bytes, 0u);
  ASSERT_OK(world_.write(kChunk, 0, "again").status());
  ASSERT_OK(world_.remove(kChunk));
  EXPECT_FALSE(world_.get(kChunk).has_value());
  ASSERT_OK(world_.drop(kChunk));
}

TEST_P(EngineTest, DropDeletesWhateverTheState) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(5000, 1)).status());
  ASSERT_OK(world_.stage(world_.request(UpdateKind::kWrite, kChunk, 2, 0, "x")).status());
  ASSERT_OK(world_.drop(kChunk));
  EXPECT_FALSE(world_.get(kChunk).has_value());
  EXPECT_EQ(world_.space().used_bytes, 0u);
}

TEST_P(EngineTest, RefusesWhatDoesNotFit) {
  ASSERT_OK(world_.write(kChunk, 0, "abc").status());
  auto stage = [&](auto change) {
    auto request = world_.request(UpdateKind::kWrite, kChunk, 2, 0, "abc");
    change(request);
    return world_.stage(std::move(request)).status().code();
  };
  EXPECT_EQ(stage([](auto& r) { r.version = 1; }), kStaleUpdate);
  EXPECT_EQ(stage([](auto& r) { r.version = 3; }), kMissingBase);
  EXPECT_EQ(stage([](auto& r) { r.version = 0; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.checksum ^= 1; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.length = 4; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.offset = 64 << 20; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.offset = 0xffffffff; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.kind = UpdateKind::kNone; }), kBadRequest);
  EXPECT_EQ(stage([](auto& r) { r.target = 12; }), kUnknownTarget);
  EXPECT_EQ(stage([](auto& r) { r.kind = UpdateKind::kTruncate, r.length = (64 << 20) + 1; }),
            kBadRequest);
  expect_content(kChunk, "abc");
}

TEST_P(EngineTest, LargestChunk) {
  std::string model = pattern(64 * kMiB, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  model.replace(33 * kMiB + 5, 10000, pattern(10000, 2));
  ASSERT_OK(world_.write(kChunk, 33 * kMiB + 5, pattern(10000, 2)).status());
  expect_content(kChunk, model);
}

TEST_P(EngineTest, TargetsAreSeparate) {
  auto& engine = world_.engine();
  auto& harness = world_.harness();
  EXPECT_OK(harness.on([&] { return engine.create_target(12, 6); }));
  EXPECT_EQ(harness.on([&] { return engine.create_target(12, 6); }).code(), uint32_t{EEXIST});
  ASSERT_OK(world_.write(kChunk, 0, "eleven").status());
  auto request = world_.request(UpdateKind::kWrite, kChunk, 1, 0, "twelve");
  request.target = 12;
  request.commit = true;
  ASSERT_OK(world_.stage(std::move(request)).status());
  expect_content(kChunk, "eleven");
  EXPECT_EQ(harness.on([&] { return engine.targets(); }).size(), 2u);
  EXPECT_OK(world_.when_idle([&] { return engine.erase_target(12); }));
  EXPECT_EQ(harness.on([&] { return engine.erase_target(12); }).code(), kUnknownTarget);
  expect_content(kChunk, "eleven");
  EXPECT_EQ(world_.space().used_bytes, 4096u);
  EXPECT_EQ(harness.on([&] { return engine.dedup_rows(12); }).size(), 0u);
}

TEST_P(EngineTest, ListAndLastOfInode) {
  for (uint64_t inode : {3, 1, 2}) {
    for (uint64_t index : {300, 0, 7}) {
      ASSERT_OK(world_.write({inode, index}, 0, "x").status());
    }
  }
  ASSERT_OK(world_.stage(world_.request(UpdateKind::kWrite, {2, 400}, 1, 0, "p")).status());
  auto& engine = world_.engine();
  world_.harness().on([&] {
    auto all = engine.list(kTarget, std::nullopt, 100);
    ASSERT_EQ(all.size(), 10u);
    EXPECT_TRUE(
        std::is_sorted(all.begin(), all.end(), [](auto& a, auto& b) { return a.chunk < b.chunk; }));
    auto page = engine.list(kTarget, ChunkId{1, 7}, 2);
    ASSERT_EQ(page.size(), 2u);
    EXPECT_EQ(page[0].chunk, (ChunkId{1, 300}));
    EXPECT_EQ(page[1].chunk, (ChunkId{2, 0}));
    auto held = engine.chunks_of_inode(kTarget, 2);
    ASSERT_TRUE(held.last.has_value());
    EXPECT_EQ(held.last->chunk.index, 300u);  // pending only does not count
    EXPECT_EQ(held.chunks, 3u);
    EXPECT_EQ(held.bytes, 3u);
    held = engine.chunks_of_inode(kTarget, 9);
    EXPECT_FALSE(held.last.has_value());
    EXPECT_EQ(held.chunks, 0u);
  });
}

TEST_P(EngineTest, DedupKeepsTheHighestSequence) {
  auto put = [&](uint64_t version, uint64_t sequence) {
    auto request = world_.request(UpdateKind::kWrite, kChunk, version, 0, "abc");
    request.identity.sequence = sequence;
    request.commit = true;
    ASSERT_OK(world_.stage(std::move(request)).status());
  };
  put(1, 5);
  put(2, 9);
  put(3, 7);
  auto rows = [&] {
    return world_.harness().on([&] { return world_.engine().dedup_rows(kTarget); });
  };
  ASSERT_EQ(rows().size(), 1u);
  EXPECT_EQ(rows()[0].identity.sequence, 9u);
  EXPECT_EQ(rows()[0].version, 2u);
  EXPECT_EQ(rows()[0].chunk, kChunk);
  EXPECT_EQ(rows()[0].chunk_length, 3u);
  DedupRow other;
  other.identity.client_id[3] = 9;
  other.identity.channel = 1;
  other.identity.sequence = 4;
  auto put_rows = [&](std::vector<DedupRow> list, bool replace = false) {
    return world_.harness().wait<Status>([&](auto done) {
      world_.engine().put_dedup_rows(kTarget, std::move(list), replace, std::move(done));
    });
  };
  ASSERT_OK(put_rows({other}));
  other.identity.sequence = 3;
  ASSERT_OK(put_rows({other}));
  world_.close();
  ASSERT_OK(world_.open());
  ASSERT_EQ(rows().size(), 2u);
  EXPECT_EQ(rows()[0].identity.sequence + rows()[1].identity.sequence, 13u);
  ASSERT_OK(put_rows({other}, true));
  ASSERT_EQ(rows().size(), 1u);
  EXPECT_EQ(rows()[0].identity.sequence, 3u);
}

// Rows of clients that are gone do not stay for ever: those touched longest ago go, on the disk as
// well, and the order survives a restart.
TEST_P(EngineTest, DedupRowsAreBounded) {
  constexpr size_t kMore = 100, kAll = engine::kDedupRowsMax + kMore;
  auto put = [&](size_t begin, size_t end, uint64_t sequence) {
    std::vector<DedupRow> list(end - begin);
    for (size_t i = begin; i < end; ++i) {
      DedupRow& row = list[i - begin];
      row.identity.client_id[0] = static_cast<uint8_t>(200 - i / 64 % 200);  // not in key order
      row.identity.client_id[1] = static_cast<uint8_t>(i / 12800);
      row.identity.channel = static_cast<uint32_t>(i % 64);
      row.identity.sequence = sequence;
      row.version = i + 1;
    }
    ASSERT_OK(world_.harness().wait<Status>([&](auto done) {
      world_.engine().put_dedup_rows(kTarget, std::move(list), false, std::move(done));
    }));
  };
  auto versions = [&] {
    std::vector<uint64_t> found;
    for (auto& row : world_.harness().on([&] { return world_.engine().dedup_rows(kTarget); }))
      found.push_back(row.version);
    return found;
  };
  put(0, engine::kDedupRowsMax, 1);
  EXPECT_EQ(versions().size(), engine::kDedupRowsMax);
  put(0, 10, 2);  // touched again: not the oldest any more
  put(engine::kDedupRowsMax, kAll, 1);
  std::vector<uint64_t> expected;
  for (size_t i = 10 + kMore; i < engine::kDedupRowsMax; ++i) expected.push_back(i + 1);
  for (size_t i = 0; i < 10; ++i) expected.push_back(i + 1);
  for (size_t i = engine::kDedupRowsMax; i < kAll; ++i) expected.push_back(i + 1);
  EXPECT_EQ(versions(), expected);
  EXPECT_OK(world_.audit());
  world_.close();
  ASSERT_OK(world_.open());
  EXPECT_EQ(versions(), expected);
  EXPECT_OK(world_.audit());
  put(3, 4, 3);
  EXPECT_EQ(versions().back(), 4u);
  EXPECT_EQ(versions().size(), engine::kDedupRowsMax);
}

TEST_P(EngineTest, ManyAtOnceShareSyncs) {
  constexpr int kCount = 200;
  auto& engine = world_.engine();
  std::vector<StageRequest> requests;
  for (int i = 0; i < kCount; ++i) {
    auto request = world_.request(UpdateKind::kWrite, {1, static_cast<uint64_t>(i)}, 1, 0,
                                  pattern(4096 + i, i));
    request.commit = true;
    requests.push_back(std::move(request));
  }
  int failed = world_.harness().wait<int>([&](auto done) {
    auto left = std::make_shared<int>(kCount), bad = std::make_shared<int>(0);
    auto shared = std::make_shared<Function<void(int)>>(std::move(done));
    for (auto& request : requests) {
      engine.stage(std::move(request), [=](Result<StageResult> result) {
        *bad += !result.ok();
        if (--*left == 0) (*shared)(*bad);
      });
    }
  });
  EXPECT_EQ(failed, 0);
  EXPECT_LT(world_.statistics().syncs, uint64_t{kCount} / 2);
  for (int i = 0; i < kCount; ++i) {
    expect_content({1, static_cast<uint64_t>(i)}, pattern(4096 + i, i));
  }
}

TEST_P(EngineTest, UpdatesOfOneChunkRunInOrder) {
  auto& engine = world_.engine();
  std::vector<StageRequest> requests;
  for (uint64_t version = 1; version <= 20; ++version) {
    auto request = world_.request(UpdateKind::kWrite, kChunk, version, 0,
                                  pattern(5000, static_cast<uint32_t>(version)));
    request.commit = true;
    requests.push_back(std::move(request));
  }
  std::string order = world_.harness().wait<std::string>([&](auto done) {
    auto text = std::make_shared<std::string>();
    auto shared = std::make_shared<Function<void(std::string)>>(std::move(done));
    for (auto& request : requests) {
      uint64_t version = request.version;
      engine.stage(std::move(request), [=](Result<StageResult> result) {
        *text += std::to_string(version) + (result.ok() ? " " : "! ");
        if (version == 20) (*shared)(*text);
      });
    }
  });
  EXPECT_EQ(order, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 ");
  expect_content(kChunk, pattern(5000, 20));
}

TEST_P(EngineTest, ReadersSeeWholeVersionsWhileWritersRun) {
  auto& engine = world_.engine();
  ASSERT_OK(world_.write(kChunk, 0, std::string(200000, 'a')).status());
  struct Run {
    int writes = 0, reads_running = 0, bad = 0, reads = 0;
    bool finished = false;
  };
  auto run = std::make_shared<Run>();
  std::function<void()> reader, writer;  // of this scope: one that held itself would never go
  std::function<void(Function<void(int)>)> go = [&](Function<void(int)> done) {
    auto shared = std::make_shared<Function<void(int)>>(std::move(done));
    reader = [&engine, run, shared, &reader] {
      ++run->reads_running;
      engine.read(kTarget, kChunk, 0, 200000, false, [=, &reader](Result<ReadResult> result) {
        std::string bytes = result.ok() ? string_of(result->data) : "";
        run->bad += bytes.empty() || bytes != std::string(bytes.size(), bytes[0]);
        ++run->reads;
        --run->reads_running;
        if (!run->finished) return reader();
        if (run->reads_running == 0) (*shared)(run->bad);
      });
    };
    writer = [this, &engine, run, &writer] {
      if (++run->writes > 60) {
        run->finished = true;
        return;
      }
      auto kind = run->writes % 3 == 0 ? UpdateKind::kTruncate : UpdateKind::kReplace;
      uint64_t version = engine.get(kTarget, kChunk)->committed.version + 1;
      auto request = world_.request(
          kind, kChunk, version, 0,
          kind == UpdateKind::kTruncate ? "" : std::string(200000, char('a' + run->writes % 26)));
      if (kind == UpdateKind::kTruncate) request.length = 140000 + run->writes;
      request.commit = true;
      engine.stage(std::move(request), [run, &writer](Result<StageResult> result) {
        run->bad += !result.ok();
        writer();
      });
    };
    for (int i = 0; i < 4; ++i) reader();
    writer();
  };
  EXPECT_EQ(world_.harness().wait<int>(go), 0);
  EXPECT_GT(run->reads, 60);
}

// Reads of a version that has been replaced meanwhile still find its bytes: an append after a cut
// does not go over them.
TEST_P(EngineTest, ReadOfACutVersionIsWhole) {
  ASSERT_OK(world_.write(kChunk, 0, pattern(60000, 1)).status());
  ASSERT_OK(world_.truncate(kChunk, 40000).status());
  uint64_t used = world_.space().used_bytes;
  uint64_t copied = world_.statistics().copied_bytes;
  ASSERT_OK(world_.write(kChunk, 40000, pattern(20000, 2)).status());
  EXPECT_GE(world_.statistics().copied_bytes - copied, 40000u);  // elsewhere
  ASSERT_OK(world_.write(kChunk, 60000, "in place again").status());
  EXPECT_EQ(world_.space().used_bytes, used);
  expect_content(kChunk, pattern(40000, 1) + pattern(20000, 2) + "in place again");
}

TEST_P(EngineTest, UnsyncedCommitHoldsItsOldBlockBack) {
  constexpr uint32_t kBytes = 32 * kKiB;  // no patch
  ASSERT_OK(world_.write(kChunk, 0, pattern(kBytes, 1)).status());
  ASSERT_OK(
      world_.stage(world_.request(UpdateKind::kWrite, kChunk, 2, 0, pattern(kBytes, 2))).status());
  EXPECT_EQ(world_.space().used_bytes, 2 * kBytes);
  ASSERT_OK(world_.commit(kChunk, 2, false));
  EXPECT_EQ(world_.space().used_bytes, 2 * kBytes);  // version 1 may come back
  ASSERT_OK(world_.commit(kChunk, 2));
  ASSERT_OK(world_.write({6, 6}, 0, "any synced update").status());
  EXPECT_EQ(world_.space().used_bytes, kBytes + 4096);
}

// ---- opening

TEST_P(EngineTest, ForeignDisksAreRefusedWithBothIds) {
  world_.close();
  world_.options().node_id = 3;
  Status status = world_.open();
  EXPECT_EQ(status.code(), kWrongCluster);
  EXPECT_NE(status.detail().find("node 2"), std::string_view::npos);
  EXPECT_NE(status.detail().find("node 3"), std::string_view::npos);
  world_.options().node_id = 2;
  world_.options().cluster_id = "fedcba9876543210";
  status = world_.open();
  EXPECT_EQ(status.code(), kWrongCluster);
  EXPECT_NE(status.detail().find("30313233343536373839616263646566"), std::string_view::npos);
  EXPECT_NE(status.detail().find("66656463626139383736353433323130"), std::string_view::npos);
  world_.options().cluster_id = kCluster;
  world_.options().create = false;
  ASSERT_OK(world_.open());
}

TEST(EngineOpen, DirectoryWithoutSuperblock) {
  EngineWorld world;
  world.options().create = false;
  EXPECT_EQ(world.open().code(), uint32_t{ENOENT});
  std::filesystem::create_directory(world.directory());
  Status status = world.open();
  EXPECT_EQ(status.code(), uint32_t{ENOENT});
  EXPECT_NE(status.detail().find("superblock"), std::string_view::npos);
  world.options().cluster_id = "short";
  EXPECT_EQ(world.open().code(), uint32_t{EINVAL});
}

TEST(EngineOpen, DamagedSuperblockIsNamed) {
  EngineWorld world;
  world.start();
  ASSERT_OK(world.write(kChunk, 0, "kept").status());
  world.close();
  std::string path = world.directory() + "/superblock";
  std::string sound(4096, '\0');
  std::ifstream(path, std::ios::binary).read(sound.data(), 4096);
  auto attempt = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    Status status = world.open();
    EXPECT_EQ(status.code(), uint32_t{EBADMSG}) << status.to_string();
    EXPECT_NE(status.detail().find(path), std::string_view::npos);
  };
  attempt("");
  attempt(sound.substr(0, 4095));
  attempt(sound + "x");
  attempt(pattern(4096, 5));
  for (size_t at : {0u, 8u, 12u, 20u, 100u, 4093u}) {
    std::string flipped = sound;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    attempt(flipped);
  }
  std::ofstream(path, std::ios::binary | std::ios::trunc) << sound;
  ASSERT_OK(world.open());
  EXPECT_EQ(world.content(kChunk), "kept");
}

TEST(EngineOpen, LostPartsAreErrorsNotEmptyDisks) {
  EngineWorld world;
  world.start();
  ASSERT_OK(world.write(kChunk, 0, pattern(4096, 1)).status());
  world.close();
  std::filesystem::rename(world.directory() + "/superblock", world.directory() + "/away");
  EXPECT_EQ(world.open().code(), uint32_t{EEXIST});
  std::filesystem::rename(world.directory() + "/away", world.directory() + "/superblock");
  std::filesystem::rename(world.directory() + "/meta", world.directory() + "/away");
  EXPECT_FALSE(world.open().ok());
  std::filesystem::remove_all(world.directory() + "/meta");
  std::filesystem::rename(world.directory() + "/away", world.directory() + "/meta");
  std::filesystem::resize_file(world.directory() + "/blocks/4096", 0);
  Status status = world.open();
  EXPECT_EQ(status.code(), uint32_t{EBADMSG});
  EXPECT_NE(status.detail().find("blocks/4096"), std::string_view::npos);
}

TEST(EngineOpen, OneOwner) {
  EngineWorld world;
  world.start();
  auto second = world.harness().on(
      [&] { return engine::Engine::open(world.harness().reactor(), world.options()); });
  EXPECT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), uint32_t{EBUSY});
}

// ---- full disk

class FullDisk : public testing::Test {
 protected:
  FullDisk() : world_(&medium_) { world_.start(); }
  ~FullDisk() override {
    EXPECT_OK(world_.audit());
    EXPECT_FALSE(world_.engine().failed());
  }
  // Returns how many chunks fitted.
  uint64_t fill(uint32_t size) {
    for (uint64_t i = 0;; ++i) {
      auto result = world_.write({1, i}, 0, pattern(size, static_cast<uint32_t>(i)));
      if (result.ok()) continue;
      EXPECT_EQ(result.status().code(), uint32_t{ENOSPC}) << result.status().to_string();
      return i;
    }
  }
  disk::SimMedium medium_{5, 64 << 20};
  EngineWorld world_;
};

TEST_F(FullDisk, EnospcToTheWriterAndNothingElseBreaks) {
  uint64_t count = fill(kMiB);
  EXPECT_GE(count, 32u);
  for (uint64_t i = 0; i < count; ++i) {
    EXPECT_TRUE(world_.content({1, i}) == pattern(kMiB, static_cast<uint32_t>(i)));
  }
  EXPECT_LT(world_.space().free_bytes, 16u << 20);
  // Metadata still works, and so does giving space back.
  ASSERT_OK(world_.truncate({1, 0}, 1000).status());
  EXPECT_TRUE(world_.content({1, 0}) == pattern(kMiB, 0).substr(0, 1000));
  ASSERT_OK(world_.truncate({1, 0}, 2000).status());
  ASSERT_OK(world_.remove({1, 1}));
  ASSERT_OK(world_.write({2, 0}, 0, pattern(kMiB, 77)).status());
  EXPECT_EQ(world_.write({2, 1}, 0, pattern(2 * kMiB, 78)).status().code(), uint32_t{ENOSPC});
  for (uint64_t i = 2; i < count; ++i) ASSERT_OK(world_.remove({1, i}));
  // The space went back to the disk and serves another size class.
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_OK(world_.write({3, i}, 0, pattern(4 * kMiB, static_cast<uint32_t>(i))).status());
  }
}

TEST_F(FullDisk, ATruncateThatSparesBlocksTakesNone) {
  ASSERT_OK(world_.write({1, 0}, 0, pattern(kMiB, 3)).status());
  uint64_t used_bytes = world_.space().used_bytes;
  auto request = world_.request(UpdateKind::kTruncate, {1, 0}, 2, 0, "");
  request.length = 5000;
  request.spares_blocks = true;
  request.commit = true;
  ASSERT_OK(world_.stage(std::move(request)).status());
  EXPECT_TRUE(world_.content({1, 0}) == pattern(kMiB, 3).substr(0, 5000));
  EXPECT_EQ(world_.space().used_bytes, used_bytes);  // the block of 1 MiB
  ASSERT_OK(world_.truncate({1, 0}, 4000).status());
  EXPECT_LT(world_.space().used_bytes, used_bytes);  // one of 4 KiB
}

TEST_F(FullDisk, UnsyncedCommitsGiveTheirBlocksBackWhenNeeded) {
  uint64_t count = fill(kMiB);
  // Removals that nothing has made durable yet.
  for (uint64_t i = 0; i < count; ++i) {
    ASSERT_OK(world_.stage(world_.request(UpdateKind::kRemove, {1, i}, 2, 0, "")).status());
  }
  for (uint64_t i = 0; i < count; ++i) ASSERT_OK(world_.commit({1, i}, 2, false));
  EXPECT_EQ(fill(kMiB), count);
}

engine::BlockCounts blocks_for(uint32_t size, uint32_t count) {
  engine::BlockCounts blocks{};
  blocks[engine::size_class_of(size)] = count;
  return blocks;
}

TEST_F(FullDisk, RoomIsCountedInBlocksOfTheSize) {
  EXPECT_TRUE(world_.has_room(blocks_for(kMiB, 16)));
  EXPECT_FALSE(world_.has_room(blocks_for(kMiB, 64)));
  uint64_t count = fill(kMiB);
  EXPECT_FALSE(world_.has_room(blocks_for(kMiB, 1)));
  ASSERT_OK(world_.remove({1, 0}));
  ASSERT_OK(world_.remove({1, 1}));
  EXPECT_TRUE(world_.has_room(blocks_for(kMiB, 2)));
  EXPECT_FALSE(world_.has_room(blocks_for(kMiB, 3)));
  EXPECT_FALSE(world_.has_room(blocks_for(2 * kMiB, 1)));
  for (uint64_t i = 2; i < count; ++i) ASSERT_OK(world_.remove({1, i}));
  EXPECT_TRUE(world_.has_room(blocks_for(2 * kMiB, 8)));
}

TEST_F(FullDisk, WhatHasRoomIsTaken) {
  const uint32_t sizes[] = {4096, 65536, 100'000, 300'000, 2 * kMiB, kMiB, 4 * kMiB, 9000};
  uint64_t taken = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    uint32_t size = sizes[(i * 7 + i / 11) % 8];
    if (i % 3 == 2) ASSERT_OK(world_.remove({1, i / 2}));
    if (!world_.has_room(blocks_for(size, 1))) continue;
    ++taken;
    ASSERT_OK(world_.write({1, i}, 0, pattern(size, static_cast<uint32_t>(i))).status());
  }
  EXPECT_GT(taken, 50u);
  EXPECT_LT(taken, 400u);
}

TEST_F(FullDisk, AskingForRoomFreesWhatUnsyncedCommitsHold) {
  uint64_t count = fill(kMiB);
  for (uint64_t i = 0; i < count; ++i)
    ASSERT_OK(world_.stage(world_.request(UpdateKind::kRemove, {1, i}, 2, 0, "")).status());
  for (uint64_t i = 0; i < count; ++i) ASSERT_OK(world_.commit({1, i}, 2, false));
  EXPECT_FALSE(world_.has_room(blocks_for(kMiB, 1)));
  int64_t give_up_ns = now_ns() + 10'000'000'000;
  while (!world_.has_room(blocks_for(kMiB, 1)) && now_ns() < give_up_ns) std::this_thread::yield();
  EXPECT_TRUE(world_.has_room(blocks_for(kMiB, static_cast<uint32_t>(count))));
}

TEST(EngineCapacity, OptionBoundsTheDisk) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.options().capacity_bytes = 48 << 20;
  world.start();
  uint64_t count = 0;
  while (world.write({1, count}, 0, pattern(kMiB, 1)).ok()) ++count;
  EXPECT_GE(count, 32u);
  EXPECT_LE(medium.allocated_bytes(), 48u << 20);
  EXPECT_LE(world.space().capacity_bytes, 48u << 20);
  EXPECT_OK(world.audit());
}

// ---- failures

TEST(EngineFailure, WriteErrorIsFinal) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.start();
  ASSERT_OK(world.write(kChunk, 0, "sound").status());
  medium.inject({disk::SimFault::On::kWrite, "blocks/", 0, 1, EIO});
  EXPECT_EQ(world.write({6, 0}, 0, pattern(20000, 1)).status().code(), uint32_t{EIO});
  EXPECT_EQ(medium.faults_hit(), 1u);
  EXPECT_TRUE(world.engine().failed());
  EXPECT_EQ(world.write({7, 0}, 0, "never").status().code(), uint32_t{EIO});
  EXPECT_EQ(world.commit(kChunk, 1).code(), uint32_t{EIO});
  EXPECT_EQ(world.discard(kChunk).code(), uint32_t{EIO});
  EXPECT_EQ(world.drop(kChunk).code(), uint32_t{EIO});
  EXPECT_EQ(world.read(kChunk, 0, 5).status().code(), uint32_t{EIO});
  EXPECT_EQ(world.audit().code(), uint32_t{EIO});
  world.close();
  ASSERT_OK(world.open());
  EXPECT_EQ(world.content(kChunk), "sound");
  EXPECT_FALSE(world.get({6, 0}).has_value());
}

TEST(EngineFailure, SyncErrorIsFinalAndReachesAllWhoWait) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.start();
  ASSERT_OK(world.write(kChunk, 0, "sound").status());
  medium.inject({disk::SimFault::On::kSync, "blocks/", 0, 1, EIO});
  std::vector<StageRequest> requests;
  for (uint64_t i = 0; i < 8; ++i) {
    requests.push_back(world.request(UpdateKind::kWrite, {9, i}, 1, 0, pattern(20000, 1)));
  }
  int failed = world.harness().wait<int>([&](auto done) {
    auto left = std::make_shared<size_t>(requests.size());
    auto bad = std::make_shared<int>(0);
    auto shared = std::make_shared<Function<void(int)>>(std::move(done));
    for (auto& request : requests) {
      world.engine().stage(std::move(request), [=](Result<StageResult> result) {
        *bad += !result.ok() && result.status().code() == EIO;
        if (--*left == 0) (*shared)(*bad);
      });
    }
  });
  EXPECT_EQ(failed, 8);
  EXPECT_TRUE(world.engine().failed());
  // The sync works again, but who knows what was lost: nothing is accepted.
  EXPECT_EQ(world.write({7, 0}, 0, "never").status().code(), uint32_t{EIO});
}

TEST(EngineFailure, RottenBytesAreNeverReturned) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.start();
  std::string data = pattern(64 * kKiB, 1);
  ASSERT_OK(world.write(kChunk, 0, data).status());
  ASSERT_OK(world.write({6, 0}, 0, pattern(64 * kKiB, 2)).status());
  medium.corrupt("blocks/65536", 20000, 1);
  auto result = world.read(kChunk, 19000, 2000);
  EXPECT_EQ(result.status().code(), kChecksumMismatch);
  EXPECT_NE(result.status().detail().find("blocks/65536"), std::string_view::npos);
  EXPECT_EQ(world.statistics().checksum_errors, 1u);
  EXPECT_TRUE(string_of(world.read(kChunk, 0, 16384)->data) == data.substr(0, 16384));
  EXPECT_TRUE(world.content({6, 0}) == pattern(64 * kKiB, 2));
  // A copy does not carry them on under a new checksum.
  EXPECT_EQ(world.write(kChunk, 40000, pattern(20000, 3)).status().code(), kChecksumMismatch);
  EXPECT_FALSE(world.engine().failed());
  // Repair, as resync does it; the bad block is not used again, also not after a restart.
  auto repair = world.request(UpdateKind::kReplace, kChunk, 1, 0, data);
  repair.commit = true;
  ASSERT_OK(world.stage(std::move(repair)).status());
  EXPECT_TRUE(world.content(kChunk) == data);
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_OK(world.audit());
    uint64_t written = world.statistics().staged_bytes;
    for (uint64_t i = 0; i < 40; ++i) {
      ASSERT_OK(world
                    .write({8, i + 100 * static_cast<uint64_t>(restart)}, 0,
                           pattern(64 * kKiB, static_cast<uint32_t>(i)))
                    .status());
    }
    EXPECT_GT(world.statistics().staged_bytes, written);
    medium.corrupt("blocks/65536", 20000, 1);  // nobody lives there
    EXPECT_TRUE(world.content(kChunk) == data);
    for (uint64_t i = 0; i < 40; ++i) {
      EXPECT_TRUE(world.content({8, i}) == pattern(64 * kKiB, static_cast<uint32_t>(i)));
    }
    world.close();
    ASSERT_OK(world.open());
  }
}

// What a resync brings of a chunk that is damaged in every replica.
struct LostChunk : testing::Test {
  void SetUp() override {
    world.start();
    ASSERT_OK(world.write(kChunk, 0, pattern(9000, 1)).status());
    auto lost = world.request(UpdateKind::kReplace, kChunk, 7, 0, "");
    lost.length = 20000;
    lost.checksum = 4711;
    lost.identity = {};
    lost.commit = lost.lost = true;
    auto made = world.stage(std::move(lost));
    ASSERT_OK(made.status());
    EXPECT_EQ(made->chunk_length, 20000u);
    EXPECT_EQ(made->checksum, 4711u);
  }
  void TearDown() override { EXPECT_OK(world.audit()); }
  EngineWorld world;
};

TEST_F(LostChunk, IsNeverReadAlsoAfterARestart) {
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_EQ(world.read(kChunk, 0, 1).status().code(), kChecksumMismatch);
    EXPECT_EQ(world.read(kChunk, 19999, 1).status().code(), kChecksumMismatch);
    EXPECT_EQ(world.read(kChunk, 20000, 1)->data.size(), 0u);
    auto state = world.get(kChunk);
    EXPECT_TRUE(state->damaged);
    EXPECT_EQ(state->committed.version, 7u);
    EXPECT_EQ(state->committed.length, 20000u);
    EXPECT_EQ(state->committed.checksum, 4711u);
    EXPECT_OK(world.audit());
    world.close();
    ASSERT_OK(world.open());
  }
  EXPECT_FALSE(world.engine().failed());
}

TEST_F(LostChunk, NothingOfItIsKept) {
  EXPECT_EQ(world.write(kChunk, 0, "x").status().code(), kChecksumMismatch);
  EXPECT_EQ(world.write(kChunk, 20000, "x").status().code(), kChecksumMismatch);
  EXPECT_EQ(world.truncate(kChunk, 5).status().code(), kChecksumMismatch);
  EXPECT_EQ(world.truncate(kChunk, 20000).status().code(), kChecksumMismatch);
  EXPECT_EQ(world.truncate(kChunk, 30000).status().code(), kChecksumMismatch);
  EXPECT_EQ(world.version(kChunk), 7u);
}

TEST_F(LostChunk, AnOverwriteOfAllOfItEndsIt) {
  std::string data = pattern(20000, 2);
  ASSERT_OK(world.write(kChunk, 0, data).status());
  EXPECT_TRUE(world.content(kChunk) == data);
  EXPECT_FALSE(world.get(kChunk)->damaged);
}

TEST_F(LostChunk, ACutToNothingEndsIt) {
  ASSERT_OK(world.truncate(kChunk, 0).status());
  ASSERT_OK(world.write(kChunk, 3, "x").status());
  EXPECT_EQ(world.content(kChunk), std::string("\0\0\0x", 4));
}

TEST_F(LostChunk, AVersionThatChangesNothingIsLostToo) {
  auto cut = world.request(UpdateKind::kTruncate, kChunk, 8, 0, "");
  cut.length = 20000;
  cut.commit = cut.lost = true;
  auto made = world.stage(std::move(cut));
  ASSERT_OK(made.status());
  EXPECT_EQ(made->checksum, 4711u);
  EXPECT_EQ(world.read(kChunk, 0, 1).status().code(), kChecksumMismatch);
}

TEST(EngineFailure, OnlyAVersionThatChangesNothingKeepsDamagedBytes) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.start();
  std::string data = pattern(64 * kKiB, 1);
  auto first = world.write(kChunk, 0, data);
  ASSERT_OK(first.status());
  medium.corrupt("blocks/65536", 20000, 1);
  EXPECT_FALSE(world.read(kChunk, 0, 64 * kKiB).ok());
  EXPECT_EQ(world.truncate(kChunk, 60000).status().code(), kChecksumMismatch);
  EXPECT_EQ(world.truncate(kChunk, 64 * kKiB).status().code(), kChecksumMismatch);
  auto cut = world.request(UpdateKind::kTruncate, kChunk, 2, 0, "");
  cut.length = 64 * kKiB;
  cut.commit = cut.lost = true;
  auto made = world.stage(std::move(cut));
  ASSERT_OK(made.status());
  EXPECT_EQ(made->checksum, first->checksum);
  EXPECT_TRUE(world.get(kChunk)->damaged);
  EXPECT_TRUE(string_of(world.read(kChunk, 0, 16384)->data) == data.substr(0, 16384));
  EXPECT_FALSE(world.read(kChunk, 16384, 8192).ok());
  EXPECT_OK(world.audit());
}

TEST(EngineFailure, UnreadableBlockIsNoDeadDisk) {
  disk::SimMedium medium(5);
  EngineWorld world(&medium);
  world.start();
  ASSERT_OK(world.write(kChunk, 0, pattern(20000, 1)).status());
  medium.inject({disk::SimFault::On::kRead, "blocks/", 0, 1, EIO});
  EXPECT_EQ(world.read(kChunk, 0, 5).status().code(), kChecksumMismatch);
  EXPECT_FALSE(world.engine().failed());
  ASSERT_OK(world.write({6, 0}, 0, "goes on").status());
  EXPECT_OK(world.audit());
}

TEST(Checksum, CombineMatchesTheWhole) {
  for (size_t size : {0u, 1u, 4095u, 4096u, 4097u, 8192u, 100000u}) {
    std::string data = pattern(size, 3);
    auto sums = engine::block_checksums(data.data(), size);
    uint32_t whole = crc32c(0, data.data(), size);
    EXPECT_EQ(engine::combine_blocks(sums, size), whole);
    for (size_t zeros : {0u, 1u, 4096u, 77777u}) {
      std::string longer = data + std::string(zeros, '\0');
      EXPECT_EQ(engine::extend_with_zeros(whole, zeros), crc32c(0, longer.data(), longer.size()));
    }
  }
}

}  // namespace
}  // namespace fs3::test
