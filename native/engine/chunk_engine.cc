#include "engine/chunk_engine.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "engine/checksum.h"
#include "engine/staging.h"

namespace fs3::engine {

ChunkState state_of(ChunkId id, const Chunk& chunk) {
  ChunkState state;
  state.chunk = id;
  if (chunk.committed) state.committed = chunk.committed->info;
  if (chunk.pending) state.pending = chunk.pending->info;
  auto bad = [](const VersionRef& version) {
    return version && (version->lost || (version->block && version->block->bad));
  };
  state.damaged = bad(chunk.committed);
  state.pending_damaged = bad(chunk.pending);
  return state;
}

VersionRecord record_of(const Version& version) {
  VersionRecord record;
  record.info = version.info;
  record.stored_length = version.stored_length;
  record.lost = version.lost;
  if (version.block) record.block = version.block->address();
  if (version.checksums) record.checksums = *version.checksums;
  record.first_patch = version.first_patch;
  return record;
}

ChunkEngine::ChunkEngine(Reactor& reactor, Options options, Surroundings surroundings)
    : reactor_(reactor),
      options_(std::move(options)),
      env_(surroundings.env),
      disk_(std::move(surroundings.disk)),
      folder_(*this, surroundings.patches),
      commits_(std::move(surroundings.commits)) {}

ChunkEngine::~ChunkEngine() = default;

Status ChunkEngine::failure() const {
  return Status(EIO, "engine",
                options_.directory +
                    ": the disk failed earlier; its targets must resync from "
                    "other replicas");
}

void ChunkEngine::fail(const Status&) {
  if (committer_) committer_->fail();
}

// ---- targets

Target* ChunkEngine::find_target(TargetId target) {
  auto found = targets_.find(target);
  return found == targets_.end() ? nullptr : &found->second;
}

Status ChunkEngine::create_target(TargetId target, uint32_t chain_id) {
  if (failed()) return failure();
  if (targets_.contains(target)) {
    return Status(EEXIST, "engine/create_target",
                  options_.directory + " has target " + std::to_string(target) + " already");
  }
  Status status = meta_->write(
      {{MetaChange::Kind::kPut, target_key(target), encode(TargetRecord{chain_id})}}, true);
  if (!status.ok()) {
    committer_->fail();
    return status;
  }
  targets_[target].chain_id = chain_id;
  return Status();
}

Status ChunkEngine::erase_target(TargetId target) {
  if (failed()) return failure();
  Target* found = find_target(target);
  if (found == nullptr) {
    return Status(kUnknownTarget, "engine/erase_target",
                  options_.directory + " has no target " + std::to_string(target));
  }
  if (found->updates > 0) {
    return Status(kBusy, "engine/erase_target", "updates of the target are in progress; ask again");
  }
  Status status =
      meta_->write({{MetaChange::Kind::kDelete, target_key(target), {}},
                    {MetaChange::Kind::kDeletePrefix, target_prefix(RowKind::kChunk, target), {}},
                    {MetaChange::Kind::kDeletePrefix, target_prefix(RowKind::kDedup, target), {}}},
                   true);
  if (!status.ok()) {
    committer_->fail();
    return status;
  }
  targets_.erase(target);
  blocks_->trim();
  return Status();
}

std::vector<TargetInfo> ChunkEngine::targets() const {
  std::vector<TargetInfo> result;
  for (const auto& [id, target] : targets_) result.push_back({id, target.chain_id});
  return result;
}

// ---- look-ups

const Chunk* ChunkEngine::find(const ChunkKey& key) const {
  auto target = targets_.find(key.target);
  if (target == targets_.end()) return nullptr;
  auto chunk = target->second.chunks.find(key.chunk);
  return chunk == target->second.chunks.end() ? nullptr : &chunk->second;
}

std::optional<ChunkState> ChunkEngine::get(TargetId target, ChunkId chunk) const {
  const Chunk* found = find({target, chunk});
  if (found == nullptr) return std::nullopt;
  return state_of(chunk, *found);
}

std::vector<ChunkState> ChunkEngine::list(TargetId target, std::optional<ChunkId> after,
                                          size_t limit) const {
  std::vector<ChunkState> result;
  auto found = targets_.find(target);
  if (found == targets_.end()) return result;
  const auto& chunks = found->second.chunks;
  auto at = after ? chunks.upper_bound(*after) : chunks.begin();
  for (; at != chunks.end() && result.size() < limit; ++at) {
    result.push_back(state_of(at->first, at->second));
  }
  return result;
}

InodeChunks ChunkEngine::chunks_of_inode(TargetId target, uint64_t inode) const {
  InodeChunks all;
  auto found = targets_.find(target);
  if (found == targets_.end()) return all;
  const auto& chunks = found->second.chunks;
  auto last = chunks.end();
  for (auto at = chunks.lower_bound({inode, 0}); at != chunks.end() && at->first.inode == inode;
       ++at) {
    if (!at->second.committed) continue;
    ++all.chunks;
    all.bytes += at->second.committed->stored_length;
    last = at;
  }
  if (last != chunks.end()) all.last = state_of(last->first, last->second);
  return all;
}

std::vector<DedupRow> ChunkEngine::dedup_rows(TargetId target) const {
  auto found = targets_.find(target);
  return found == targets_.end() ? std::vector<DedupRow>() : found->second.dedup.in_order();
}

Space ChunkEngine::space() const {
  Space space = blocks_->space();
  for (const auto& [id, target] : targets_) space.chunks += target.chunks.size();
  return space;
}

bool ChunkEngine::has_room(const BlockCounts& blocks) {
  if (blocks_->has_room(blocks)) return true;
  if (committer_->holds_back() && !releasing_) {
    releasing_ = true;
    CommitItem sync;
    sync.done = [this](Status) { releasing_ = false; };
    committer_->submit(std::move(sync));
  }
  return false;
}

Statistics ChunkEngine::statistics() const {
  Statistics result = statistics_;
  if (committer_) result.syncs = committer_->syncs();
  result.patch_bytes = *folder_.total();
  return result;
}

// ---- order of updates

void ChunkEngine::enter(const ChunkKey& key, Function<void()> body) {
  ++targets_.at(key.target).updates;
  auto [place, first] = active_.try_emplace(key);
  if (first) return body();
  place->second.push_back(std::move(body));
}

void ChunkEngine::leave(const ChunkKey& key) {
  auto place = active_.find(key);
  FS3_CHECK(place != active_.end());
  --targets_.at(key.target).updates;
  if (place->second.empty()) {
    active_.erase(place);
    return;
  }
  Function<void()> next = std::move(place->second.front());
  place->second.pop_front();
  // Not here: a queue of updates that all fail must not become a deep stack.
  reactor_.post([alive = std::weak_ptr<char>(alive_), next = std::move(next)]() mutable {
    if (!alive.expired()) next();
  });
}

// ---- updates

void ChunkEngine::stage(StageRequest request, Function<void(Result<StageResult>)> done) {
  ++statistics_.stages;
  ChunkKey key{request.target, request.chunk};
  auto staging = std::make_shared<Staging>(*this, std::move(request));
  Status status = failed() ? failure() : staging->check_request();
  if (status.ok() && find_target(key.target) == nullptr) {
    status = Status(kUnknownTarget, "engine/stage",
                    options_.directory + " has no target " + std::to_string(key.target));
  }
  if (!status.ok()) return answer<Result<StageResult>>(std::move(done), std::move(status));
  staging->on_done(std::move(done));
  enter(key, [staging] { staging->start(); });
}

void ChunkEngine::allocate(uint8_t size_class, Function<void(Result<BlockRef>)> done) {
  auto shared = std::make_shared<Function<void(Result<BlockRef>)>>(std::move(done));
  blocks_->allocate(size_class, [this, size_class, shared](Result<BlockRef> block) {
    if (block.ok() || block.status().code() != ENOSPC) return (*shared)(std::move(block));
    // Blocks may still be held by commits that are not durable: make them so, then try again.
    CommitItem sync;
    sync.done = [this, size_class, shared](Status status) {
      if (!status.ok()) return (*shared)(std::move(status));
      blocks_->allocate(size_class,
                        [shared](Result<BlockRef> again) { (*shared)(std::move(again)); });
    };
    committer_->submit(std::move(sync));
  });
}

// ---- reads

void ChunkEngine::quarantine(const BlockRef& block) {
  ++statistics_.checksum_errors;
  if (block->bad) return;
  blocks_->pool().mark_bad(*block);
  CommitItem item;
  item.changes.push_back({MetaChange::Kind::kPut, bad_key(block->address()), {}});
  item.synced = false;
  committer_->submit(std::move(item));
}

Status ChunkEngine::verify(const Version& version, uint32_t offset, const Buffer& buffer) {
  uint32_t end =
      static_cast<uint32_t>(std::min<uint64_t>(version.stored_length, offset + buffer.size()));
  for (uint32_t at = offset; at < end; at += kBlockBytes) {
    uint32_t index = at / kBlockBytes;
    uint32_t size = covered(version.stored_length, index);
    if (crc32c(0, buffer.data() + (at - offset), size) == (*version.checksums)[index]) continue;
    quarantine(version.block);
    return Status(kChecksumMismatch, "engine/read",
                  options_.directory + "/blocks/" + std::to_string(version.block->bytes()) +
                      ": the bytes at " + std::to_string(version.block->file_offset() + at) +
                      " do not match their checksum; the block is put aside, repair the chunk "
                      "from another replica");
  }
  return Status();
}

void ChunkEngine::read_blocks(VersionRef version, uint32_t offset, Buffer buffer,
                              Function<void(Status)> done) {
  FS3_CHECK(offset % kBlockBytes == 0 && buffer.size() % kBlockBytes == 0);
  FS3_CHECK(offset + buffer.size() <= version->block->bytes());
  auto end = offset + static_cast<uint32_t>(buffer.size());
  if (hold_all(version->patches, offset, end)) {
    lay_over(version->patches, offset, buffer);
    return answer<Status>(std::move(done), verify(*version, offset, buffer));
  }
  const Block& block = *version->block;
  auto& file = blocks_->file(block.address().size_class);
  uint64_t at = block.file_offset() + offset;
  file.read(at, buffer,
            [this, version = std::move(version), offset, buffer,
             done = std::move(done)](Result<size_t> got) mutable {
              if (got.ok() && *got == buffer.size()) {
                lay_over(version->patches, offset, buffer);
                return done(verify(*version, offset, buffer));
              }
              // One unreadable block is no dead disk.
              quarantine(version->block);
              done(Status(kChecksumMismatch, "engine/read",
                          got.ok() ? "the block file is shorter than its blocks"
                                   : got.status().to_string()));
            });
}

void ChunkEngine::read(TargetId target, ChunkId chunk, uint32_t offset, uint32_t length,
                       bool pending, Function<void(Result<ReadResult>)> done) {
  ++statistics_.reads;
  if (failed()) return answer<Result<ReadResult>>(std::move(done), failure());
  if (find_target(target) == nullptr) {
    return answer<Result<ReadResult>>(
        std::move(done), Status(kUnknownTarget, "engine/read",
                                options_.directory + " has no target " + std::to_string(target)));
  }
  const Chunk* found = find({target, chunk});
  VersionRef version = found == nullptr ? nullptr : pending ? found->pending : found->committed;
  ReadResult result;
  if (version) {
    result.version = version->info.version;
    result.chunk_length = version->info.length;
    result.chain_version = version->info.chain_version;
    result.checksum = version->info.checksum;
  }
  if (length == 0 || offset >= result.chunk_length) {
    return answer<Result<ReadResult>>(std::move(done), std::move(result));
  }
  if (version->lost) {
    return answer<Result<ReadResult>>(
        std::move(done), Status(kChecksumMismatch, "engine/read",
                                "the bytes were damaged in every replica when the chunk came here; "
                                "write it anew, or restore the file from a copy"));
  }
  uint32_t end =
      static_cast<uint32_t>(std::min<uint64_t>(result.chunk_length, uint64_t{offset} + length));
  auto begin = static_cast<uint32_t>(round_down(offset));
  Buffer buffer = Buffer::allocate(round_up(end) - begin);
  result.data = buffer.slice(offset - begin, end - offset);
  statistics_.read_bytes += end - offset;
  auto stored_end = static_cast<uint32_t>(std::max<uint64_t>(
      begin, std::min<uint64_t>(round_up(end), round_up(version->stored_length))));
  // Zeros from the end of the stored bytes on; after the read, which brings the rest of a block.
  uint32_t zeros = std::clamp(version->stored_length, begin, end);
  auto finish = [done = std::move(done), result = std::move(result), buffer, zeros, begin,
                 end](Status status) mutable {
    if (!status.ok()) return done(std::move(status));
    std::memset(buffer.data() + (zeros - begin), 0, end - zeros);
    done(std::move(result));
  };
  if (stored_end == begin) return answer<Status>(std::move(finish), Status());
  read_blocks(std::move(version), begin, buffer.slice(0, stored_end - begin), std::move(finish));
}

}  // namespace fs3::engine
