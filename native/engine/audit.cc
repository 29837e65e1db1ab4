// Engine::audit: memory against the allocator, and both against what is stored.
#include <cerrno>
#include <set>

#include "engine/chunk_engine.h"

namespace fs3::engine {
namespace {

Status wrong(const std::string& what) { return Status(EBADMSG, "engine/audit", what); }

std::string name(TargetId target, ChunkId chunk) {
  return "target " + std::to_string(target) + " chunk " + std::to_string(chunk.inode) + "." +
         std::to_string(chunk.index);
}

using Rows = std::map<std::string, std::string>;

void add_rows(TargetId target, ChunkId id, const Chunk& chunk, Rows& rows) {
  HeadRecord head;
  auto add = [&](const VersionRef& version, uint8_t slot) {
    rows[chunk_key(target, id, slot_row(slot))] = encode(record_of(*version));
    for (const PatchRowRef& row : version->patches) {
      std::string_view bytes(reinterpret_cast<const char*>(row->bytes().data()),
                             row->bytes().size());
      rows[patch_key(target, id, row->version())] = encode(PatchRecord{row->first_block(), bytes});
    }
    return slot;
  };
  if (chunk.committed) head.committed_slot = add(chunk.committed, chunk.committed_slot);
  if (chunk.pending) head.pending_slot = add(chunk.pending, chunk.free_slot());
  rows[chunk_key(target, id, ChunkRow::kHead)] = encode(head);
}

// Every row that memory says must be stored, but for the open counter and bad blocks.
Rows expected_rows(const std::map<TargetId, Target>& targets) {
  Rows rows;
  for (const auto& [id, target] : targets) {
    rows[target_key(id)] = encode(TargetRecord{target.chain_id});
    for (const auto& [chunk_id, chunk] : target.chunks) add_rows(id, chunk_id, chunk, rows);
    for (const DedupRow& row : target.dedup.in_order()) {
      rows[dedup_key(id, row.identity)] = encode(row);
    }
  }
  return rows;
}

}  // namespace

// `used_bytes`: what the chunks in memory use of good blocks.
Status ChunkEngine::audit_rows(uint64_t used_bytes) {
  uint64_t counted = blocks_->pool().counts().used_bytes;
  if (counted != used_bytes && !committer_->holds_back()) {
    return wrong("chunks use " + std::to_string(used_bytes) + " bytes of blocks, the allocator " +
                 "says " + std::to_string(counted));
  }
  Rows rows = expected_rows(targets_);
  Status status = meta_->scan([&rows](std::string_view key, std::string_view value) -> Status {
    auto parsed = parse_key(key);
    if (!parsed.ok()) return parsed.status();
    if (parsed->kind == RowKind::kBad || parsed->kind == RowKind::kOpened) return Status();
    auto found = rows.find(std::string(key));
    if (found == rows.end()) return wrong("a stored row is not in memory");
    if (found->second != value) return wrong("a stored row differs from memory");
    rows.erase(found);
    return Status();
  });
  if (status.ok() && !rows.empty()) return wrong("a row in memory is not stored");
  return status;
}

std::vector<StoredPiece> ChunkEngine::stored_pieces(TargetId target, ChunkId id,
                                                    bool pending) const {
  std::vector<StoredPiece> pieces;
  const Chunk* chunk = find({target, id});
  VersionRef version = chunk == nullptr ? nullptr : pending ? chunk->pending : chunk->committed;
  if (!version || !version->block) return pieces;
  for (uint32_t i = 0; i < blocks_of(version->stored_length); ++i) {
    if (any_touches(version->patches, i)) continue;
    pieces.push_back({block_file_name(version->block->address().size_class),
                      version->block->file_offset() + uint64_t{i} * kBlockBytes,
                      covered(version->stored_length, i), (*version->checksums)[i]});
  }
  return pieces;
}

Status ChunkEngine::audit() {
  if (failed()) return failure();
  if (!active_.empty() || reads_running_ > 0) {
    return Status(kBusy, "engine/audit", "operations are in progress");
  }
  if (!blocks_->pool().consistent()) return wrong("the allocator's counts do not add up");
  std::set<BlockAddress> seen;
  uint64_t used = 0;  // of blocks that are not bad
  for (const auto& [target_id, target] : targets_) {
    for (const auto& [id, chunk] : target.chunks) {
      if (!chunk.committed && !chunk.pending) return wrong(name(target_id, id) + ": no version");
      std::set<BlockAddress> own;
      for (const VersionRef& version : {chunk.committed, chunk.pending}) {
        if (!version) continue;
        Status status = record_of(*version).check();
        if (!status.ok()) return wrong(name(target_id, id) + ": " + status.to_string());
        if (!version->block || !own.insert(version->block->address()).second) continue;
        if (!version->block->bad) used += version->block->bytes();
      }
      for (BlockAddress block : own) {
        if (!seen.insert(block).second) return wrong(name(target_id, id) + ": shares its block");
      }
    }
  }
  return audit_rows(used);
}

}  // namespace fs3::engine
