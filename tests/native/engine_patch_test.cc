// Small updates: kept as rows, laid over the block, put into it later.
#include <gtest/gtest.h>

#include "engine_harness.h"

namespace fs3::test {
namespace {

constexpr uint32_t kKiB = 1 << 10;
constexpr uint32_t kMiB = 1 << 20;
constexpr ChunkId kChunk{5, 0};
// Never folds by itself.
constexpr engine::PatchLimits kLazy{.rows = 1000, .fold_bytes = 1 << 30, .bytes_max = 1 << 30};

class PatchTest : public testing::Test {
 protected:
  void SetUp() override {
    world_.set_patches(kLazy);
    world_.start();
  }
  void TearDown() override {
    if (!world_.is_open() || world_.engine().failed()) return;
    reopen();
  }
  void reopen() {
    EXPECT_OK(world_.audit());
    world_.close();
    ASSERT_OK(world_.open());
    EXPECT_OK(world_.audit());
  }
  void reopen(engine::PatchLimits limits) {
    world_.set_patches(limits);
    reopen();
  }
  void overwrite(std::string& model, uint32_t offset, const std::string& data) {
    if (model.size() < offset + data.size()) model.resize(offset + data.size());
    model.replace(offset, data.size(), data);
    ASSERT_OK(world_.write(kChunk, offset, data).status());
  }
  void expect_content(const std::string& model, ChunkId chunk = kChunk) {
    EXPECT_TRUE(world_.content(chunk) == model);
    EXPECT_EQ(world_.get(chunk)->committed.checksum, crc32c(0, model.data(), model.size()));
  }
  void expect_content_always(const std::string& model) {
    expect_content(model);
    reopen();
    expect_content(model);
  }
  uint64_t patches() { return world_.statistics().patches; }
  uint64_t copied() { return world_.statistics().copied_bytes; }
  // Until all patches lie in their blocks.
  void fold_all() {
    engine::PatchLimits eager = kLazy;
    eager.fold_bytes = 1;
    reopen(eager);
    while (world_.statistics().patch_bytes > 0) std::this_thread::yield();
    reopen(kLazy);
  }

  EngineWorld world_;
};

TEST_F(PatchTest, SmallOverwriteCopiesNothing) {
  std::string model = pattern(kMiB, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  uint64_t used = world_.space().used_bytes;
  overwrite(model, 100 * kKiB, pattern(4096, 2));
  EXPECT_EQ(copied(), 0u);
  EXPECT_EQ(patches(), 1u);
  EXPECT_EQ(world_.space().used_bytes, used);
  expect_content_always(model);
  overwrite(model, 100 * kKiB + 1, "unaligned: its block is read, from the patch before");
  EXPECT_EQ(world_.statistics().copied_bytes, 4096u);
  expect_content_always(model);
}

TEST_F(PatchTest, YoungerLieOverOlder) {
  std::string model = pattern(200 * kKiB, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  uint32_t seed = 2;
  for (uint32_t offset : {8192u, 4096u, 12288u, 8192u, 10000u, 0u, 8191u, 196u * kKiB}) {
    overwrite(model, offset, pattern(offset % 3 == 0 ? 4096 : 9000, ++seed));
    expect_content(model);
  }
  expect_content_always(model);
  fold_all();
  expect_content_always(model);
}

TEST_F(PatchTest, AppendsAndGapsAndCuts) {
  std::string model = pattern(5000, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  EXPECT_EQ(patches(), 1u);  // a new chunk, too
  overwrite(model, 5000, pattern(2000, 2));
  overwrite(model, 7900, pattern(200, 3));  // zeros between
  expect_content_always(model);
  ASSERT_OK(world_.truncate(kChunk, 6000).status());
  model.resize(6000);
  expect_content_always(model);
  overwrite(model, 8000, pattern(100, 4));  // what was cut does not come back
  expect_content_always(model);
  ASSERT_OK(world_.truncate(kChunk, 90000).status());
  model.resize(90000);
  overwrite(model, 50, pattern(60, 5));
  expect_content_always(model);
  fold_all();
  expect_content_always(model);
  overwrite(model, 8100, pattern(300 * kKiB, 6));
  expect_content_always(model);
}

// The bytes of an append in place are behind every patch; where the last block is patched they
// would be under it.
TEST_F(PatchTest, LargeAppendBehindAPatch) {
  for (uint32_t end : {40960u, 41000u}) {
    std::string model = pattern(end, 1);
    ASSERT_OK(world_.drop(kChunk));
    ASSERT_OK(world_.write(kChunk, 0, model).status());
    overwrite(model, end - 100, pattern(100, 2));
    overwrite(model, end, pattern(20000, 3));
    expect_content_always(model);
    fold_all();
    expect_content_always(model);
  }
}

TEST_F(PatchTest, PendingAndCommittedHaveTheirOwn) {
  std::string model = pattern(100 * kKiB, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  overwrite(model, 4096, pattern(4096, 2));
  auto stage = [&](uint32_t offset, const std::string& data) {
    auto request =
        world_.request(UpdateKind::kWrite, kChunk, world_.version(kChunk) + 1, offset, data);
    ASSERT_OK(world_.stage(std::move(request)).status());
  };
  std::string pending = model;
  pending.replace(4000, 4096, pattern(4096, 3));
  stage(4000, pattern(4096, 3));
  EXPECT_TRUE(world_.content(kChunk, true) == pending);
  expect_content_always(model);
  EXPECT_TRUE(world_.content(kChunk, true) == pending);
  // Another one in its place, without a patch.
  stage(0, pattern(50000, 4));
  EXPECT_TRUE(world_.content(kChunk, true) == pattern(50000, 4) + model.substr(50000));
  reopen();
  stage(4000, pattern(4096, 5));
  ASSERT_OK(world_.discard(kChunk));
  expect_content_always(model);
  stage(4000, pattern(4096, 3));
  ASSERT_OK(world_.commit(kChunk, world_.version(kChunk) + 1, false));
  expect_content_always(pending);
}

TEST_F(PatchTest, RowsGoWithTheirChunk) {
  for (int how = 0; how < 4; ++how) {
    std::string model = pattern(50000, 1);
    ASSERT_OK(world_.write(kChunk, 0, model).status());
    overwrite(model, 4096, pattern(4096, 2));
    overwrite(model, 9000, pattern(10, 3));
    overwrite(model, 50000, pattern(100, 4));  // longer, by a patch
    EXPECT_EQ(world_.chunks_of_inode(kChunk.inode).bytes, model.size());
    auto request =
        world_.request(UpdateKind::kWrite, kChunk, world_.version(kChunk) + 1, 20000, "pending");
    ASSERT_OK(world_.stage(std::move(request)).status());
    if (how == 0) ASSERT_OK(world_.drop(kChunk));
    if (how == 1) ASSERT_OK(world_.remove(kChunk));
    if (how == 2) ASSERT_OK(world_.truncate(kChunk, 0).status());
    if (how == 3) ASSERT_OK(world_.update(UpdateKind::kReplace, kChunk, 0, "new").status());
    reopen();  // the audit compares the rows
    EXPECT_EQ(world_.content(kChunk), how == 3 ? "new" : "");
    ASSERT_OK(world_.drop(kChunk));
  }
}

TEST_F(PatchTest, TheFolderTakesManyChunks) {
  world_.close();
  world_.set_patches({.fold_bytes = 200 * kKiB, .bytes_max = 1 << 30});
  ASSERT_OK(world_.open());
  std::map<uint64_t, std::string> model;
  for (uint32_t i = 0; i < 400; ++i) {
    uint64_t index = i % 100;
    std::string& content = model[index];
    std::string data = pattern(4096, i);
    uint32_t offset = i / 100 * 8192;
    if (content.size() < offset + data.size()) content.resize(offset + data.size());
    content.replace(offset, data.size(), data);
    ASSERT_OK(world_.write({7, index}, offset, data).status());
  }
  EXPECT_GT(world_.statistics().folded_bytes, 500 * kKiB);
  for (const auto& [index, content] : model) expect_content(content, {7, index});
  reopen();
  for (const auto& [index, content] : model) expect_content(content, {7, index});
}

// Old bytes under a patch may rot; what the patch holds is not lost by it.
TEST_F(PatchTest, RotUnderAPatchIsSeenBesideIt) {
  std::string model = pattern(200 * kKiB, 1);
  ASSERT_OK(world_.write(kChunk, 0, model).status());
  overwrite(model, 4096, pattern(4096, 2));
  for (const auto& file : std::filesystem::directory_iterator(world_.directory() + "/blocks")) {
    if (std::filesystem::file_size(file) == 0) continue;
    FILE* raw = fopen(file.path().c_str(), "r+");
    ASSERT_NE(raw, nullptr);
    for (long at : {4096 + 7, 100 * 1024}) {
      fseek(raw, at, SEEK_SET);
      fputc(model[static_cast<size_t>(at)] ^ 0x10, raw);
    }
    fclose(raw);
  }
  EXPECT_TRUE(string_of(world_.read(kChunk, 4096, 4096)->data) == model.substr(4096, 4096));
  EXPECT_TRUE(string_of(world_.read(kChunk, 0, 12288)->data) == model.substr(0, 12288));
  EXPECT_EQ(world_.read(kChunk, 100 * 1024, 10).status().code(), kChecksumMismatch);
  EXPECT_TRUE(world_.get(kChunk)->damaged);
}

}  // namespace
}  // namespace fs3::test
