// Loader: builds the chunk table from the rows of the metadata, in the order of their keys.
//
// It refuses what could not have been written: a version without a head, a head that names a
// version that is not there, a block outside its file or in two chunks.
#pragma once

#include <map>
#include <set>
#include <string_view>

#include "engine/block_store.h"
#include "engine/chunk_table.h"

namespace fs3::engine {

class Loader {
 public:
  // `patch_bytes` is what patches count themselves in.
  Loader(BlockStore& blocks, std::map<TargetId, Target>& targets,
         std::shared_ptr<uint64_t> patch_bytes)
      : blocks_(blocks), targets_(targets), patch_bytes_(std::move(patch_bytes)) {}

  Status add(std::string_view key, std::string_view value);
  // After the last row.
  Status finish_chunk();
  uint64_t times_opened() const { return times_opened_; }

 private:
  Status add_chunk_row(const ParsedKey& key, std::string_view value);
  Status add_head(const ParsedKey& key, std::string_view value);
  Status add_version(uint8_t slot, std::string_view value);
  Status add_patch(ChunkVersion version, std::string_view value);
  Result<BlockRef> adopt(const VersionRecord& record);
  Result<Target*> target_of(TargetId target);

  BlockStore& blocks_;
  std::map<TargetId, Target>& targets_;
  const std::shared_ptr<uint64_t> patch_bytes_;
  uint64_t times_opened_ = 0;
  std::set<BlockAddress> bad_in_use_;
  // The chunk whose rows are passing.
  Chunk* chunk_ = nullptr;
  TargetId target_ = 0;
  ChunkId id_;
  HeadRecord head_;
  std::vector<std::shared_ptr<Version>> versions_;
};

}  // namespace fs3::engine
