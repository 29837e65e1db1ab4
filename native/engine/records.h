// Keys and values in the engine's RocksDB. The format is written down in FORMAT.md.
//
// Every value begins with a schema byte and ends with the CRC32C of what precedes. Decoders check
// before they believe: a wrong length, an unknown schema or kind, bytes left over, or a relation
// that check() refuses is an EBADMSG status that names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/types.h"

namespace fs3::engine {

// Size class c holds blocks of 4 KiB << c: 4 KiB .. 64 MiB.
constexpr uint8_t kClasses = kSizeClasses;
constexpr uint8_t kNoBlock = 255;
constexpr uint8_t kLostBlock = 254;  // instead of a class: the bytes are lost
constexpr uint8_t kNoSlot = 255;

constexpr uint64_t class_bytes(uint8_t size_class) { return uint64_t{4096} << size_class; }
// The smallest class that holds `length` bytes. REQUIRES: 0 < length <= 64 MiB.
uint8_t class_of(uint64_t length);

struct BlockAddress {
  uint8_t size_class = kNoBlock;
  uint32_t index = 0;
  bool none() const { return size_class == kNoBlock; }
  auto operator<=>(const BlockAddress&) const = default;
};

// A chunk has a head row, and a row per version in slot 0 or 1.
struct HeadRecord {
  uint8_t committed_slot = kNoSlot;
  uint8_t pending_slot = kNoSlot;
  Status check() const;
};

struct VersionRecord {
  PendingInfo info;            // kind and identity of the update that made it
  uint32_t stored_length = 0;  // bytes in the block; the rest up to info.length reads as zeros
  BlockAddress block;
  bool lost = false;                // stored_length is 0, and what was there is not zeros
  std::vector<uint32_t> checksums;  // per 4 KiB of the stored bytes
  // Patches of this version and those after it, up to the version's own, lie over the block; 0:
  // none.
  ChunkVersion first_patch = 0;
  Status check() const;
};

// Whole blocks of 4 KiB of a version, which lie over its block from `first_block` on.
struct PatchRecord {
  uint32_t first_block = 0;
  std::string_view bytes;
};

struct TargetRecord {
  uint32_t chain_id = 0;
};

// Written, synced, at each open.
struct OpenedRecord {
  uint64_t times = 0;
};

std::string encode(const HeadRecord& record);
std::string encode(const VersionRecord& record);
std::string encode(const PatchRecord& record);
std::string encode(const TargetRecord& record);
std::string encode(const OpenedRecord& record);
std::string encode(const DedupRow& record);  // channel and client id are in the key
Result<HeadRecord> decode_head(std::string_view bytes);
Result<VersionRecord> decode_version(std::string_view bytes);
// The bytes stay those of the argument.
Result<PatchRecord> decode_patch(std::string_view bytes);
Result<TargetRecord> decode_target(std::string_view bytes);
Result<OpenedRecord> decode_opened(std::string_view bytes);
// The identity comes from the key, but for the sequence.
Result<DedupRow> decode_dedup(UpdateIdentity identity, std::string_view bytes);

// The first byte of a key says what the row is. Integers in keys are big-endian: RocksDB's order is
// the order of chunk ids.
enum class RowKind : char {
  // A scan meets them in this order: targets and bad blocks are known before chunks.
  kTarget = 'a',
  kBad = 'b',
  kChunk = 'c',
  kDedup = 'd',
  kOpened = 'o',
};
enum class ChunkRow : uint8_t { kHead = 0, kSlot0 = 1, kSlot1 = 2, kPatch = 3 };

std::string chunk_key(TargetId target, ChunkId chunk, ChunkRow row);
// Of the patch that the update to `version` is.
std::string patch_key(TargetId target, ChunkId chunk, ChunkVersion version);
inline ChunkRow slot_row(uint8_t slot) { return slot == 0 ? ChunkRow::kSlot0 : ChunkRow::kSlot1; }
std::string dedup_key(TargetId target, const UpdateIdentity& identity);
std::string target_key(TargetId target);
std::string bad_key(BlockAddress block);
std::string opened_key();
// Begin of all chunk or dedup rows of a target.
std::string target_prefix(RowKind kind, TargetId target);

struct ParsedKey {
  RowKind kind = RowKind::kOpened;
  TargetId target = 0;
  ChunkId chunk;  // kChunk
  ChunkRow row = ChunkRow::kHead;
  ChunkVersion version = 0;  // kPatch
  UpdateIdentity identity;   // kDedup, without sequence
  BlockAddress block;        // kBad
};
Result<ParsedKey> parse_key(std::string_view key);

}  // namespace fs3::engine
