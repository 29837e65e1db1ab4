// Opening a disk: ownership, then every row of the metadata into memory, then the blocks they name.
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "disk/posix_disk.h"
#include "engine/chunk_engine.h"
#include "engine/loader.h"
#include "engine/superblock.h"

namespace fs3::engine {
namespace {

constexpr const char* kWhere = "engine/open";

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (char byte : bytes) {
    text += kDigits[static_cast<uint8_t>(byte) >> 4];
    text += kDigits[static_cast<uint8_t>(byte) & 15];
  }
  return text;
}

Superblock wanted_superblock(const Options& options) {
  Superblock superblock;
  superblock.node_id = options.node_id;
  FS3_CHECK(options.cluster_id.size() == superblock.cluster_id.size());
  std::memcpy(superblock.cluster_id.data(), options.cluster_id.data(), options.cluster_id.size());
  return superblock;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(Reactor& reactor, Options options) {
  disk::PosixDiskOptions disk_options{.directory = options.directory, .create = options.create};
  auto disk = disk::open_posix_disk(reactor, std::move(disk_options));
  if (!disk.ok()) return disk.status();
  return ChunkEngine::open(reactor, std::move(options), {std::move(*disk), nullptr});
}

Result<std::unique_ptr<Engine>> ChunkEngine::open(Reactor& reactor, Options options,
                                                  Surroundings surroundings) {
  if (options.cluster_id.size() != 16) {
    return Status(EINVAL, kWhere, "cluster_id: must be 16 bytes long");
  }
  std::unique_ptr<ChunkEngine> engine(
      new ChunkEngine(reactor, std::move(options), std::move(surroundings)));
  Status status = engine->recover();
  if (!status.ok()) return status;
  return std::unique_ptr<Engine>(std::move(engine));
}

Status ChunkEngine::recover() {
  Status status = claim_directory();
  if (!status.ok()) return status;
  blocks_ = std::make_unique<BlockStore>(*disk_, options_.capacity_bytes,
                                         [this](Status why) { fail(why); });
  status = blocks_->open();
  if (status.ok()) status = load();
  if (status.ok()) status = count_open();
  if (!status.ok()) return status;
  blocks_->finish_recovery();
  if (!commits_) commits_ = start_executor("commit");
  committer_ = std::make_unique<Committer>(reactor_, *meta_, std::move(commits_));
  for (const auto& [id, target] : targets_) {
    for (const auto& [chunk, versions] : target.chunks) folder_.committed({id, chunk});
  }
  return Status();
}

// The superblock is written last when a disk is made, so a disk that has one is complete: missing
// metadata is then an error, not an empty disk.
Status ChunkEngine::claim_directory() {
  std::string meta_directory = options_.directory + "/meta";
  auto superblock = load_superblock(*disk_, options_.directory);
  if (!superblock.ok()) {
    if (superblock.status().code() != ENOENT) return superblock.status();
    if (!options_.create) {
      return Status(ENOENT, kWhere,
                    options_.directory +
                        " has no superblock: it was never made a disk of fs3 (create), or it is "
                        "not mounted");
    }
    return format(meta_directory);
  }
  Status status = check_owner(*superblock, wanted_superblock(options_), options_.directory);
  if (!status.ok()) return status;
  auto meta = MetaStore::open(meta_directory, false, env_);
  if (!meta.ok()) return meta.status();
  meta_ = std::move(*meta);
  return Status();
}

Status ChunkEngine::format(const std::string& meta_directory) {
  auto meta = MetaStore::open(meta_directory, true, env_);
  if (!meta.ok()) return meta.status();
  meta_ = std::move(*meta);
  // Left behind by an interrupted start it is empty; with rows in it the superblock was lost.
  Status status = meta_->scan([&](std::string_view, std::string_view) {
    return Status(EEXIST, kWhere,
                  options_.directory +
                      " has no superblock, but meta/ holds rows: the superblock "
                      "was lost; restore it or use an empty directory");
  });
  if (!status.ok()) return status;
  status =
      meta_->write({{MetaChange::Kind::kPut, "x", ""}, {MetaChange::Kind::kDelete, "x", ""}}, true);
  if (!status.ok()) return status;
  return disk_->write_small(kSuperblockName, encode(wanted_superblock(options_)));
}

Status ChunkEngine::load() {
  Loader loader(*blocks_, targets_, folder_.total());
  Status status = meta_->scan([&](std::string_view key, std::string_view value) {
    Status row = loader.add(key, value);
    if (row.ok()) return row;
    return Status(row.code(), kWhere,
                  options_.directory + "/meta: row " + hex(key) + ": " + std::string(row.detail()));
  });
  if (status.ok()) status = loader.finish_chunk();
  if (!status.ok()) return status;
  times_opened_ = loader.times_opened() + 1;
  return Status();
}

// Synced, and with it everything that was recovered: what a killed process left in the page cache
// must not be lost later, when its blocks have been written over.
Status ChunkEngine::count_open() {
  return meta_->write({{MetaChange::Kind::kPut, opened_key(), encode(OpenedRecord{times_opened_})}},
                      true);
}

}  // namespace fs3::engine
