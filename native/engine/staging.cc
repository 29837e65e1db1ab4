#include "engine/staging.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "engine/checksum.h"

namespace fs3::engine {
namespace {

// What one composed write carries, and how many writes of one stage are in flight: bounds the
// memory of rewriting a chunk of 64 MiB.
constexpr uint32_t kSegmentBytes = 1 << 20;
constexpr uint32_t kDirectBytes = 4 << 20;
constexpr size_t kSegmentsInFlight = 8;
// Two reads closer than this cost more than one that spans them.
constexpr uint32_t kReadGap = 128 << 10;

std::string name(const ChunkKey& key) {
  return "target " + std::to_string(key.target) + " chunk " + std::to_string(key.chunk.inode) +
         "." + std::to_string(key.chunk.index);
}

bool has_data(UpdateKind kind) {
  return kind == UpdateKind::kWrite || kind == UpdateKind::kReplace;
}

}  // namespace

Staging::Staging(ChunkEngine& engine, StageRequest request)
    : engine_(engine), request_(std::move(request)), key_{request_.target, request_.chunk} {}

Status Staging::check_request() {
  auto refuse = [](const char* what) { return Status(kBadRequest, "engine/stage", what); };
  UpdateKind kind = request_.kind;
  if (kind == UpdateKind::kNone || kind > UpdateKind::kReplace) return refuse("kind: unknown");
  // A removal that is committed at once leaves no record that the version could be in.
  bool leaves_record = kind != UpdateKind::kRemove || !request_.commit;
  if (request_.version == 0 && leaves_record) return refuse("version: zero");
  if (kind != UpdateKind::kWrite) request_.offset = 0;
  if (request_.length > kChunkBytesMax || request_.offset > kChunkBytesMax - request_.length) {
    return refuse("offset and length: the chunk would be longer than 64 MiB");
  }
  bool may_be_lost = kind == UpdateKind::kReplace || kind == UpdateKind::kTruncate;
  if (request_.lost && (!may_be_lost || request_.length == 0))
    return refuse("lost: belongs to a replacement or cut of some length");
  if (!has_data(kind) || request_.lost) return Status();
  data_length_ = request_.length;
  if (request_.data.size() < data_length_) return refuse("data: shorter than length");
  uint32_t sum;
  if (request_.offset % kBlockBytes == 0) {
    data_sums_ = block_checksums(request_.data.data(), data_length_);
    sum = combine_blocks(data_sums_, data_length_);
  } else {
    sum = crc32c(0, request_.data.data(), data_length_);
  }
  if (sum == request_.checksum) return Status();
  return Status(kBadRequest, "engine/stage",
                name(key_) + ": the data does not match the checksum that came with it");
}

// ---- what and where

void Staging::start() {
  if (engine_.failed()) return finish_error(engine_.failure());
  Status status = check_version();
  if (!status.ok()) return finish_error(std::move(status));
  engine_.statistics_.staged_bytes += data_length_;
  plan();
}

Status Staging::check_version() const {
  if (engine_.find_target(key_.target) == nullptr) {
    return Status(kUnknownTarget, "engine/stage", name(key_) + ": the target was erased");
  }
  const Chunk* chunk = engine_.find(key_);
  bool whatever = request_.kind == UpdateKind::kReplace ||
                  (request_.kind == UpdateKind::kRemove && request_.commit);
  if (whatever || chunk == nullptr || !chunk->committed) return Status();
  uint64_t committed = chunk->committed->info.version;
  if (request_.version == committed + 1) return Status();
  return Status(request_.version <= committed ? kStaleUpdate : kMissingBase, "engine/stage",
                name(key_) + " is at version " + std::to_string(committed) + ", the update makes " +
                    std::to_string(request_.version));
}

void Staging::plan() {
  PendingInfo& info = next_->info;
  info.version = request_.version;
  info.chain_version = request_.chain_version;
  info.kind = request_.kind;
  info.identity = request_.identity;
  const Chunk* chunk = engine_.find(key_);
  bool keeps = request_.kind == UpdateKind::kWrite || request_.kind == UpdateKind::kTruncate;
  if (chunk != nullptr && keeps) old_ = chunk->committed;
  bool replaces = request_.kind == UpdateKind::kReplace;
  if (old_ ? old_->lost : request_.lost && replaces) return plan_lost();
  switch (request_.kind) {
    case UpdateKind::kRemove:
      return finish();
    case UpdateKind::kReplace:
      info.length = next_->stored_length = data_length_;
      return data_length_ == 0 ? finish() : allocate_new(class_of(data_length_), false);
    case UpdateKind::kWrite:
      return plan_write();
    case UpdateKind::kTruncate:
      return plan_truncate();
    case UpdateKind::kNone:
      break;
  }
  FS3_CHECK(false);
}

// Of lost bytes none can be kept, but as lost ones.
void Staging::plan_lost() {
  bool write = request_.kind == UpdateKind::kWrite;
  bool cut = request_.kind == UpdateKind::kTruncate;
  bool whole = write ? data_begin() == 0 && data_end() >= old_length() && data_length_ > 0
                     : cut && request_.length == 0;
  if (whole) {
    old_ = nullptr;
    return write ? plan_write() : plan_truncate();
  }
  if (write || (cut && (!request_.lost || request_.length != old_length()))) {
    return finish_error(Status(kChecksumMismatch, "engine/stage",
                               name(key_) + ": bytes that the update keeps were damaged in every "
                                            "replica when the chunk came here"));
  }
  next_->info.length = request_.length;
  next_->info.checksum = cut ? old_->info.checksum : request_.checksum;
  next_->lost = true;
  finish();
}

void Staging::plan_write() {
  next_->info.length = data_length_ == 0 ? old_length() : std::max(old_length(), data_end());
  next_->stored_length = data_length_ == 0 ? old_stored() : std::max(old_stored(), data_end());
  kept_end_ = old_stored();
  if (data_length_ == 0) return share_block();
  if (can_patch()) return plan_patch();
  // In place only past every byte that any version which may still be read, or come back after a
  // crash, has in this block.
  const Chunk* chunk = engine_.find(key_);
  bool in_place = old_ && old_->block && !chunk->pending && !old_->block->bad &&
                  data_begin() >= old_stored() && old_->block->protected_length == old_stored() &&
                  stored() <= old_->block->bytes() &&
                  !any_touches(old_->patches, old_stored() / kBlockBytes);
  if (in_place) return use_block(old_->block, static_cast<uint32_t>(round_down(old_stored())));
  allocate_new(class_of(stored()), false);
}

bool Staging::can_patch() const {
  const PatchLimits& limits = engine_.folder_.limits();
  if (engine_.folder_.full()) return false;
  if (round_up(data_end()) - patch_begin() > limits.row_bytes) return false;
  if (!old_ || !old_->block) return true;
  return !old_->block->bad && stored() <= old_->block->bytes() &&
         old_->patches.size() < limits.rows;
}

void Staging::plan_patch() {
  if (old_ && old_->block) return patch_block(old_->block);
  engine_.allocate(class_of(stored()), [self = shared_from_this()](Result<BlockRef> block) {
    if (!block.ok()) return self->finish_error(block.status());
    self->patch_block(std::move(*block));
  });
}

void Staging::patch_block(BlockRef block) {
  block->protected_length = std::max<uint64_t>(block->protected_length, stored());
  next_->block = std::move(block);
  share_with_old();
  if (old_ && old_->checksums) sums_ = *old_->checksums;
  sums_.resize(blocks_of(stored()));
  Segment segment{patch_begin(), std::min(stored(), static_cast<uint32_t>(round_up(data_end())))};
  compose_segment(segment, [self = shared_from_this(), segment](Result<Buffer> bytes) {
    if (!bytes.ok()) return self->finish_error(bytes.status());
    auto row = std::make_shared<const PatchRow>(self->request_.version, segment.begin / kBlockBytes,
                                                std::move(*bytes), self->engine_.folder_.total());
    // What the new row hides need not be kept, once this version is the committed one.
    std::erase_if(self->next_->patches, [&row](const PatchRowRef& older) {
      return row->covers(older->begin(), older->end());
    });
    self->next_->patches.push_back(row);
    self->next_->first_patch = self->next_->patches.front()->version();
    self->patch_ = std::move(row);
    ++self->engine_.statistics_.patches;
    self->finish();
  });
}

// The new version lies in the old one's block, under the old one's patches.
void Staging::share_with_old() {
  if (!old_ || next_->block != old_->block) return;
  next_->first_patch = old_->first_patch;
  next_->patches = old_->patches;
}

void Staging::plan_truncate() {
  next_->info.length = request_.length;
  next_->stored_length = std::min(old_stored(), request_.length);
  kept_end_ = stored();
  if (request_.lost && request_.length != old_length()) {
    return finish_error(Status(kBadRequest, "engine/stage", "lost: the cut changes the length"));
  }
  if (stored() == 0) return finish();
  if (old_->block->bad && !request_.lost) {
    return finish_error(Status(kChecksumMismatch, "engine/stage",
                               name(key_) + ": of the bytes that the cut keeps some are damaged"));
  }
  uint8_t size_class = class_of(stored());
  if (stored() == old_stored() || size_class == old_->block->address().size_class ||
      request_.spares_blocks) {
    return share_block();
  }
  allocate_new(size_class, true);
}

// `may_share`: without room for a new block the old one, though too big, will do.
void Staging::allocate_new(uint8_t size_class, bool may_share) {
  engine_.allocate(size_class, [self = shared_from_this(), may_share](Result<BlockRef> block) {
    if (block.ok()) return self->use_block(std::move(*block), 0);
    if (may_share && block.status().code() == ENOSPC) return self->share_block();
    self->finish_error(block.status());
  });
}

// The new version is the old block, perhaps less of it: only the sum of a cut block is new.
void Staging::share_block() {
  if (!old_ || !old_->block) return finish();
  next_->block = old_->block;
  share_with_old();
  sums_ = *old_->checksums;
  sums_.resize(blocks_of(stored()));
  uint32_t last = static_cast<uint32_t>(sums_.size()) - 1;
  uint32_t begin = last * kBlockBytes;
  if (covered(stored(), last) == covered(old_stored(), last)) return finish();
  Buffer buffer = Buffer::allocate(kBlockBytes);
  buffer.resize(kBlockBytes);
  engine_.read_blocks(old_, begin, buffer,
                      [self = shared_from_this(), buffer, last](Status status) {
                        if (!status.ok()) return self->finish_error(std::move(status));
                        self->sums_[last] = crc32c(0, buffer.data(), covered(self->stored(), last));
                        self->finish();
                      });
}

// ---- writing

void Staging::use_block(BlockRef block, uint32_t dirty_begin) {
  FS3_CHECK(stored() <= block->bytes());
  FS3_CHECK(dirty_begin % kBlockBytes == 0);
  block->protected_length = std::max<uint64_t>(block->protected_length, stored());
  next_->block = std::move(block);
  share_with_old();
  sums_.resize(blocks_of(stored()));
  for (uint32_t i = 0; i < dirty_begin / kBlockBytes; ++i) sums_[i] = (*old_->checksums)[i];
  cursor_ = dirty_begin;
  next_segments();
}

void Staging::next_segments() {
  while (error_.ok() && cursor_ < stored() && in_flight_ < kSegmentsInFlight) {
    Segment segment = segment_at(cursor_);
    cursor_ = segment.end;
    ++in_flight_;
    if (is_direct(segment.begin)) {
      write_direct(segment);
    } else {
      compose_segment(segment, [self = shared_from_this(), segment](Result<Buffer> bytes) {
        if (!bytes.ok()) return self->segment_done(bytes.status());
        self->write(segment, std::move(*bytes));
      });
    }
  }
  if (in_flight_ > 0) return;
  if (!error_.ok()) return finish_error(error_);
  finish();
}

// From here on whole blocks of new data lie in memory as the disk wants them.
bool Staging::is_direct(uint32_t begin) const {
  auto address = reinterpret_cast<uintptr_t>(request_.data.data());
  return begin >= data_begin() && data_begin() % kBlockBytes == 0 && address % kBlockBytes == 0 &&
         begin < round_down(data_end());
}

Staging::Segment Staging::segment_at(uint32_t begin) const {
  if (is_direct(begin)) {
    auto end = static_cast<uint32_t>(round_down(data_end()));
    return {begin, std::min(end, begin + kDirectBytes)};
  }
  return {begin, std::min(stored(), begin + kSegmentBytes)};
}

void Staging::write_direct(Segment segment) {
  Buffer buffer = request_.data.slice(segment.begin - data_begin(), segment.size());
  sum_blocks(segment, buffer);
  write(segment, std::move(buffer));
}

// The segment's new bytes, in whole blocks; their sums are known when it calls back.
void Staging::compose_segment(Segment segment, Function<void(Result<Buffer>)> done) {
  Buffer buffer = Buffer::allocate(round_up(segment.size()));
  buffer.resize(round_up(segment.size()));
  read_kept(
      segment, buffer,
      [self = shared_from_this(), segment, buffer, done = std::move(done)](Status status) mutable {
        if (!status.ok()) return done(std::move(status));
        self->compose(segment, buffer);
        self->sum_blocks(segment, buffer);
        done(std::move(buffer));
      });
}

// Reads what the segment keeps of the old bytes, on both sides of the new data, into its place.
void Staging::read_kept(Segment segment, const Buffer& buffer, Function<void(Status)> done) {
  uint32_t kept_end = std::min(kept_end_, segment.end);
  uint32_t left_end = data_length_ == 0 ? kept_end : std::min(kept_end, data_begin());
  uint32_t right_begin = std::max(segment.begin, data_end());
  auto aligned = [](uint32_t begin, uint32_t end) {
    return Segment{static_cast<uint32_t>(round_down(begin)), static_cast<uint32_t>(round_up(end))};
  };
  Segment left{segment.begin, segment.begin}, right{segment.end, segment.end};
  if (left_end > segment.begin) left = aligned(segment.begin, left_end);
  if (data_length_ > 0 && kept_end > right_begin) right = aligned(right_begin, kept_end);
  if (left.size() > 0 && right.size() > 0 && left.end + kReadGap >= right.begin) {
    left.end = right.end;
    right.begin = right.end;
  }
  auto then_right = [self = shared_from_this(), right, segment, buffer,
                     done = std::move(done)](Status status) mutable {
    if (!status.ok()) return done(std::move(status));
    self->read_range(right, segment.begin, buffer, std::move(done));
  };
  read_range(left, segment.begin, buffer, std::move(then_right));
}

// `buffer` begins at `buffer_begin` of the chunk.
void Staging::read_range(Segment range, uint32_t buffer_begin, const Buffer& buffer,
                         Function<void(Status)> done) {
  if (range.size() == 0) return done(Status());
  engine_.statistics_.copied_bytes += range.size();
  engine_.read_blocks(old_, range.begin, buffer.slice(range.begin - buffer_begin, range.size()),
                      std::move(done));
}

// Puts the new data over the old, zeros between the old end and the new data, and zeros in the rest
// of the last block.
void Staging::compose(Segment segment, const Buffer& buffer) const {
  auto clear = [&](uint64_t begin, uint64_t end) {
    begin = std::max<uint64_t>(begin, segment.begin);
    if (begin < end) std::memset(buffer.data() + (begin - segment.begin), 0, end - begin);
  };
  clear(segment.end, round_up(segment.end));
  if (data_length_ == 0) return;
  clear(kept_end_, std::min(data_begin(), segment.end));
  uint32_t begin = std::max(segment.begin, data_begin());
  uint32_t end = std::min(segment.end, data_end());
  if (begin >= end) return;
  std::memcpy(buffer.data() + (begin - segment.begin),
              request_.data.data() + (begin - data_begin()), end - begin);
}

// The block's content is the old one's, which was verified when it was read.
bool Staging::keeps_sum(uint32_t block) const {
  if (!old_ || block >= old_->checksums->size()) return false;
  uint32_t begin = block * kBlockBytes;
  uint32_t size = covered(stored(), block);
  if (begin + size > kept_end_ || size != covered(old_stored(), block)) return false;
  return data_length_ == 0 || begin + size <= data_begin() || begin >= data_end();
}

void Staging::sum_blocks(Segment segment, const Buffer& buffer) {
  for (uint32_t at = segment.begin; at < segment.end; at += kBlockBytes) {
    uint32_t block = at / kBlockBytes;
    uint32_t size = covered(stored(), block);
    if (keeps_sum(block)) {
      sums_[block] = (*old_->checksums)[block];
      continue;
    }
    bool whole = !data_sums_.empty() && at >= data_begin() && at + size <= data_end();
    uint32_t in_data = whole ? (at - data_begin()) / kBlockBytes : 0;
    if (whole && covered(data_length_, in_data) == size) {
      sums_[block] = data_sums_[in_data];
    } else {
      sums_[block] = crc32c(0, buffer.data() + (at - segment.begin), size);
    }
  }
}

void Staging::write(Segment segment, Buffer buffer) {
  FS3_CHECK(buffer.size() % kBlockBytes == 0);
  FS3_CHECK(segment.begin + buffer.size() <= next_->block->bytes());
  wrote_ = true;
  auto& file = engine_.blocks_->file(next_->block->address().size_class);
  file.write(next_->block->file_offset() + segment.begin, std::move(buffer),
             [self = shared_from_this()](Status status) {
               if (!status.ok()) self->engine_.fail(status);
               self->segment_done(status);
             });
}

void Staging::segment_done(const Status& status) {
  FS3_CHECK(in_flight_ > 0);
  --in_flight_;
  if (error_.ok() && !status.ok()) error_ = status;
  next_segments();
}

// ---- metadata

CommitItem Staging::commit_item(const Chunk* chunk) {
  static const Chunk kNone;
  const Chunk& current = chunk == nullptr ? kNone : *chunk;
  uint8_t slot = current.free_slot();
  CommitItem item;
  item.kept.push_back(next_);
  item.kept.push_back(current.pending);
  if (wrote_) item.written = &engine_.blocks_->file(next_->block->address().size_class);
  engine_.remove_patches(key_, current.pending, {current.committed.get(), next_.get()},
                         item.changes);
  if (patch_) {
    std::string_view bytes(reinterpret_cast<const char*>(patch_->bytes().data()),
                           patch_->bytes().size());
    item.changes.push_back({MetaChange::Kind::kPut,
                            patch_key(key_.target, key_.chunk, patch_->version()),
                            encode(PatchRecord{patch_->first_block(), bytes})});
  }
  bool removal = request_.kind == UpdateKind::kRemove;
  if (!request_.commit || !removal) {
    item.changes.push_back({MetaChange::Kind::kPut,
                            chunk_key(key_.target, key_.chunk, slot_row(slot)),
                            encode(record_of(*next_))});
  }
  if (request_.commit) {
    item.kept.push_back(current.committed);
    engine_.commit_changes(key_, current, *next_, slot, item.changes);
    return item;
  }
  uint8_t committed = current.committed ? current.committed_slot : kNoSlot;
  item.changes.push_back({MetaChange::Kind::kPut,
                          chunk_key(key_.target, key_.chunk, ChunkRow::kHead),
                          encode(HeadRecord{committed, slot})});
  return item;
}

void Staging::finish() {
  if (engine_.failed()) return finish_error(engine_.failure());
  if (!next_->lost) {
    uint32_t sum = combine_blocks(sums_, stored());
    next_->info.checksum = extend_with_zeros(sum, next_->info.length - stored());
  }
  next_->checksums = std::make_shared<const std::vector<uint32_t>>(std::move(sums_));
  if (next_->block) next_->block->add_holder(next_);
  if (request_.commit) ++engine_.statistics_.commits;
  request_.data = Buffer();
  CommitItem item = commit_item(engine_.find(key_));
  auto apply = [self = shared_from_this()] {
    ChunkEngine& engine = self->engine_;
    if (self->request_.commit) return engine.make_committed(self->key_, self->next_);
    engine.targets_.at(self->key_.target).chunks[self->key_.chunk].pending = self->next_;
  };
  auto done = [self = shared_from_this()](Status status) {
    if (!status.ok()) return self->done_(std::move(status));
    self->done_(StageResult{self->next_->info.length, self->next_->info.checksum});
  };
  engine_.submit(key_, std::move(item), std::move(apply), std::move(done));
}

void Staging::finish_error(Status status) {
  engine_.leave(key_);
  // In a later round: an error may come while the caller is still inside stage().
  engine_.answer<Result<StageResult>>(std::move(done_), std::move(status));
}

}  // namespace fs3::engine
