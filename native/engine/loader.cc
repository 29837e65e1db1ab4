#include "engine/loader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace fs3::engine {
namespace {

Status bad(std::string_view what) { return Status(EBADMSG, "engine/load", what); }

}  // namespace

Result<Target*> Loader::target_of(TargetId target) {
  auto found = targets_.find(target);
  if (found == targets_.end()) return bad("names a target that has no row");
  return &found->second;
}

Status Loader::add(std::string_view key, std::string_view value) {
  auto parsed = parse_key(key);
  if (!parsed.ok()) return parsed.status();
  if (parsed->kind == RowKind::kChunk) return add_chunk_row(*parsed, value);
  Status status = finish_chunk();
  if (!status.ok()) return status;
  switch (parsed->kind) {
    case RowKind::kTarget: {
      auto record = decode_target(value);
      if (!record.ok()) return record.status();
      targets_[parsed->target].chain_id = record->chain_id;
      return Status();
    }
    case RowKind::kBad:
      status = blocks_.check_inside(parsed->block);
      if (status.ok()) blocks_.pool().mark_bad(parsed->block);
      return status;
    case RowKind::kDedup: {
      auto target = target_of(parsed->target);
      if (!target.ok()) return target.status();
      auto row = decode_dedup(parsed->identity, value);
      if (!row.ok()) return row.status();
      (*target)->dedup.load(*row);
      return Status();
    }
    case RowKind::kOpened: {
      auto record = decode_opened(value);
      if (record.ok()) times_opened_ = record->times;
      return record.status();
    }
    case RowKind::kChunk:
      break;
  }
  return bad("key: unknown kind of row");
}

Status Loader::add_chunk_row(const ParsedKey& key, std::string_view value) {
  if (key.row == ChunkRow::kHead) return add_head(key, value);
  if (chunk_ == nullptr || target_ != key.target || id_ != key.chunk) {
    return bad("a version without the head of its chunk");
  }
  if (key.row == ChunkRow::kPatch) return add_patch(key.version, value);
  return add_version(key.row == ChunkRow::kSlot0 ? 0 : 1, value);
}

// Patches follow the versions of their chunk, oldest first.
Status Loader::add_patch(ChunkVersion version, std::string_view value) {
  auto record = decode_patch(value);
  if (!record.ok()) return record.status();
  Buffer bytes = Buffer::allocate(record->bytes.size());
  bytes.resize(record->bytes.size());
  std::memcpy(bytes.data(), record->bytes.data(), record->bytes.size());
  auto row = std::make_shared<const PatchRow>(version, record->first_block, std::move(bytes),
                                              patch_bytes_);
  bool used = false;
  for (const auto& over : versions_) {
    if (over->first_patch == 0 || version < over->first_patch || version > over->info.version) {
      continue;
    }
    over->patches.push_back(row);
    used = true;
  }
  return used ? Status() : bad("a patch that lies over no version");
}

Status Loader::add_head(const ParsedKey& key, std::string_view value) {
  Status status = finish_chunk();
  if (!status.ok()) return status;
  auto target = target_of(key.target);
  if (!target.ok()) return target.status();
  auto head = decode_head(value);
  if (!head.ok()) return head.status();
  head_ = *head;
  target_ = key.target;
  id_ = key.chunk;
  chunk_ = &(*target)->chunks[key.chunk];
  versions_.clear();
  if (head_.committed_slot != kNoSlot) chunk_->committed_slot = head_.committed_slot;
  if (head_.committed_slot == kNoSlot && head_.pending_slot != kNoSlot) {
    chunk_->committed_slot = static_cast<uint8_t>(1 - head_.pending_slot);
  }
  return Status();
}

// An append in place shares its block with the committed version of the same chunk.
Result<BlockRef> Loader::adopt(const VersionRecord& record) {
  if (record.block.none()) return BlockRef();
  Status status = blocks_.check_inside(record.block);
  if (!status.ok()) return status;
  for (const VersionRef& other : {chunk_->committed, chunk_->pending}) {
    if (other && other->block && other->block->address() == record.block) return other->block;
  }
  BlockRef block = blocks_.pool().adopt(record.block);
  // The pool hands a bad block to whoever names it; its one user is known here.
  bool first = block && (!block->bad || bad_in_use_.insert(record.block).second);
  if (!first) return bad("block: another chunk uses it too");
  return block;
}

Status Loader::add_version(uint8_t slot, std::string_view value) {
  VersionRef* place = nullptr;
  if (slot == head_.committed_slot) place = &chunk_->committed;
  if (slot == head_.pending_slot) place = &chunk_->pending;
  if (place == nullptr) return bad("a version that the head of its chunk does not name");
  auto record = decode_version(value);
  if (!record.ok()) return record.status();
  auto block = adopt(*record);
  if (!block.ok()) return block.status();
  auto version = std::make_shared<Version>();
  version->info = record->info;
  version->stored_length = record->stored_length;
  version->lost = record->lost;
  version->block = std::move(*block);
  version->checksums = std::make_shared<std::vector<uint32_t>>(std::move(record->checksums));
  version->first_patch = record->first_patch;
  versions_.push_back(version);
  if (version->block) {
    version->block->protected_length =
        std::max<uint64_t>(version->block->protected_length, version->stored_length);
    version->block->add_holder(version);
  }
  *place = version;
  return Status();
}

Status Loader::finish_chunk() {
  if (chunk_ == nullptr) return Status();
  bool committed = head_.committed_slot == kNoSlot || chunk_->committed != nullptr;
  bool pending = head_.pending_slot == kNoSlot || chunk_->pending != nullptr;
  if (!committed || !pending) {
    return bad("chunk " + std::to_string(id_.inode) + "." + std::to_string(id_.index) +
               " of target " + std::to_string(target_) +
               ": the head names a version that is not there");
  }
  if (chunk_->committed && chunk_->committed->info.kind == UpdateKind::kRemove) {
    return bad("a removal is stored as a committed version");
  }
  chunk_ = nullptr;
  return Status();
}

}  // namespace fs3::engine
