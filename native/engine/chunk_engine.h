// The implementation of engine.h: chunks in memory, blocks by BlockStore, durability by Committer.
//
// A version of a chunk is immutable; it names a block, the bytes stored in it, and their checksums.
// stage() builds the next version (staging.cc), the committer makes it durable, and only then does
// it enter the table that get() and read() see. Updates of one chunk run one after the other;
// reads run at any time and hold the block of the version they read. Small updates stay rows of the
// metadata for a while (patches.h) before they are put into their block (folder.h).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "engine/block_store.h"
#include "engine/chunk_table.h"
#include "engine/committer.h"
#include "engine/engine.h"
#include "engine/folder.h"
#include "engine/meta_store.h"
#include "engine/records.h"

namespace fs3::engine {

// Where a disk is and what it runs on; tests put simulated parts here.
struct Surroundings {
  std::unique_ptr<disk::Disk> disk;
  rocksdb::Env* env = nullptr;  // null: the host's
  PatchLimits patches = {};
  std::unique_ptr<Executor> commits = nullptr;  // null: a thread
};

// Of a version's bytes those in one block of 4 KiB, where they come from a block file.
struct StoredPiece {
  std::string file;
  uint64_t offset = 0;
  uint32_t size = 0;
  uint32_t checksum = 0;
};

class ChunkEngine final : public Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(Reactor& reactor, Options options,
                                              Surroundings surroundings);
  ~ChunkEngine() override;

  Status create_target(TargetId target, uint32_t chain_id) override;
  Status erase_target(TargetId target) override;
  std::vector<TargetInfo> targets() const override;
  std::optional<ChunkState> get(TargetId target, ChunkId chunk) const override;
  std::vector<ChunkState> list(TargetId target, std::optional<ChunkId> after,
                               size_t limit) const override;
  InodeChunks chunks_of_inode(TargetId target, uint64_t inode) const override;
  std::vector<DedupRow> dedup_rows(TargetId target) const override;
  void stage(StageRequest request, Function<void(Result<StageResult>)> done) override;
  void commit(TargetId target, ChunkId chunk, uint64_t version, bool synced,
              Function<void(Status)> done) override;
  void discard(TargetId target, ChunkId chunk, Function<void(Status)> done) override;
  void drop(TargetId target, ChunkId chunk, Function<void(Status)> done) override;
  void put_dedup_rows(TargetId target, std::vector<DedupRow> rows, bool replace,
                      Function<void(Status)> done) override;
  void read(TargetId target, ChunkId chunk, uint32_t offset, uint32_t length, bool pending,
            Function<void(Result<ReadResult>)> done) override;
  Space space() const override;
  bool has_room(const BlockCounts& blocks) override;
  bool failed() const override { return committer_ == nullptr || committer_->failed(); }
  Statistics statistics() const override;
  Status audit() override;
  // Where the bytes of the version lie: for tests that damage them, or look at them past the
  // engine.
  std::vector<StoredPiece> stored_pieces(TargetId target, ChunkId chunk, bool pending) const;

 private:
  friend class Staging;
  friend class Folder;

  ChunkEngine(Reactor& reactor, Options options, Surroundings surroundings);

  // ---- recovery.cc
  Status recover();
  Status claim_directory();
  Status format(const std::string& meta_directory);
  Status load();
  Status count_open();

  // ---- table
  Target* find_target(TargetId target);
  const Chunk* find(const ChunkKey& key) const;
  // Runs `body` when no other update of the chunk runs. `body` calls leave() exactly once.
  void enter(const ChunkKey& key, Function<void()> body);
  void leave(const ChunkKey& key);
  // Calls back in a later round.
  template <typename T>
  void answer(Function<void(T)> done, T value);
  Status failure() const;
  void fail(const Status& why);

  // ---- commit.cc
  void commit_now(const ChunkKey& key, uint64_t version, bool synced, Function<void(Status)> done);
  void discard_now(const ChunkKey& key, Function<void(Status)> done);
  void drop_now(const ChunkKey& key, Function<void(Status)> done);
  void submit(const ChunkKey& key, CommitItem item, Function<void()> apply,
              Function<void(Status)> done);
  void commit_changes(const ChunkKey& key, const Chunk& chunk, const Version& next, uint8_t slot,
                      std::vector<MetaChange>& changes);
  void remove_patches(const ChunkKey& key, const VersionRef& version,
                      std::initializer_list<const Version*> others,
                      std::vector<MetaChange>& changes);
  void make_committed(const ChunkKey& key, const VersionRef& next);
  Status audit_rows(uint64_t used_bytes);
  void add_dedup(TargetId target, DedupRow row, std::vector<MetaChange>& changes);
  void quarantine(const BlockRef& block);

  // A read of stored bytes, verified: [offset, offset + buffer.size()) of the version, aligned.
  void read_blocks(VersionRef version, uint32_t offset, Buffer buffer, Function<void(Status)> done);
  Status verify(const Version& version, uint32_t offset, const Buffer& buffer);
  // A block of the class; ENOSPC only after everything freed has become free.
  void allocate(uint8_t size_class, Function<void(Result<BlockRef>)> done);

  Reactor& reactor_;
  const Options options_;
  rocksdb::Env* const env_;
  // Destroyed from the last to the first: the commit thread ends before what it uses.
  std::unique_ptr<disk::Disk> disk_;
  std::unique_ptr<MetaStore> meta_;
  std::unique_ptr<BlockStore> blocks_;
  std::map<TargetId, Target> targets_;
  std::map<ChunkKey, std::deque<Function<void()>>> active_;
  uint64_t times_opened_ = 0;
  size_t reads_running_ = 0;
  Statistics statistics_;
  bool releasing_ = false;  // a sync was asked for to free held blocks
  Folder folder_;
  std::unique_ptr<Executor> commits_;  // until the committer has it
  std::unique_ptr<Committer> committer_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

template <typename T>
void ChunkEngine::answer(Function<void(T)> done, T value) {
  reactor_.post([alive = std::weak_ptr<char>(alive_), done = std::move(done),
                 value = std::move(value)]() mutable {
    if (!alive.expired()) done(std::move(value));
  });
}

}  // namespace fs3::engine
