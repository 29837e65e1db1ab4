// Staging: one stage() on its way from the request to a durable version.
//
// It decides where the new bytes go (a new block, past the end in the old one, or a patch over it),
// writes them in segments with what must be kept of the old bytes, computes the checksums as they
// pass, and hands the metadata to the committer.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/chunk_engine.h"

namespace fs3::engine {

class Staging : public std::enable_shared_from_this<Staging> {
 public:
  Staging(ChunkEngine& engine, StageRequest request);
  void on_done(Function<void(Result<StageResult>)> done) { done_ = std::move(done); }
  // Bounds and the checksum of the data: nothing that needs the chunk. Comes first.
  Status check_request();
  // When no other update of the chunk runs.
  void start();

 private:
  // Bytes [begin, end) of the new version, written in one piece; begin is aligned.
  struct Segment {
    uint32_t begin = 0;
    uint32_t end = 0;
    uint32_t size() const { return end - begin; }
  };

  Status check_version() const;
  void plan();
  void plan_write();
  void plan_lost();
  void plan_truncate();
  bool can_patch() const;
  void plan_patch();
  void patch_block(BlockRef block);
  void allocate_new(uint8_t size_class, bool may_share);
  void share_block();
  void use_block(BlockRef block, uint32_t dirty_begin);

  void next_segments();
  Segment segment_at(uint32_t begin) const;
  bool is_direct(uint32_t begin) const;
  void write_direct(Segment segment);
  void compose_segment(Segment segment, Function<void(Result<Buffer>)> done);
  void read_kept(Segment segment, const Buffer& buffer, Function<void(Status)> done);
  void read_range(Segment range, uint32_t buffer_begin, const Buffer& buffer,
                  Function<void(Status)> done);
  void compose(Segment segment, const Buffer& buffer) const;
  void sum_blocks(Segment segment, const Buffer& buffer);
  bool keeps_sum(uint32_t block) const;
  void write(Segment segment, Buffer buffer);
  void segment_done(const Status& status);

  void finish();
  void finish_error(Status status);
  CommitItem commit_item(const Chunk* chunk);

  uint32_t data_begin() const { return request_.offset; }
  uint32_t data_end() const { return request_.offset + data_length_; }
  uint32_t stored() const { return next_->stored_length; }
  uint32_t old_stored() const { return old_ ? old_->stored_length : 0; }
  uint32_t old_length() const { return old_ ? old_->info.length : 0; }
  // Where a patch begins: at the new data, or at the old end when zeros lie between.
  uint32_t patch_begin() const {
    return static_cast<uint32_t>(round_down(std::min(data_begin(), old_stored())));
  }
  void share_with_old();

  ChunkEngine& engine_;
  StageRequest request_;
  Function<void(Result<StageResult>)> done_;
  const ChunkKey key_;
  uint32_t data_length_ = 0;  // kWrite, kReplace
  std::vector<uint32_t>
      data_sums_;   // per 4 KiB of the data, when it begins on a block of the chunk
  VersionRef old_;  // whose bytes are kept; null: none
  std::shared_ptr<Version> next_ = std::make_shared<Version>();
  uint32_t kept_end_ = 0;       // old stored bytes below it are in the new version
  std::vector<uint32_t> sums_;  // of the new version
  uint32_t cursor_ = 0;         // where the next segment begins
  size_t in_flight_ = 0;        // segments
  bool wrote_ = false;
  PatchRowRef patch_;  // of this update
  Status error_;
};

}  // namespace fs3::engine
