#include "engine/records.h"

#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "engine/checksum.h"

namespace fs3::engine {
namespace {

constexpr uint8_t kSchema = 1;
// Of a version row that names patches; without them it is kSchema and lacks the field.
constexpr uint8_t kPatchedSchema = 2;

Status bad(const char* what) { return Status(EBADMSG, "engine/record", what); }

// Little-endian fields behind a schema byte, closed by a CRC32C.
class Writer {
 public:
  explicit Writer(uint8_t schema = kSchema) { put<uint8_t>(schema); }
  template <typename T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_bytes(const void* data, size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
  }
  std::string close() {
    put<uint32_t>(crc32c(0, bytes_.data(), bytes_.size()));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  // Checks the frame: schema first, CRC last.
  Status open() {
    if (bytes_.size() < 1 + sizeof(uint32_t)) return bad("length: shorter than any record");
    uint32_t stored;
    std::memcpy(&stored, bytes_.data() + bytes_.size() - sizeof stored, sizeof stored);
    bytes_.remove_suffix(sizeof stored);
    if (crc32c(0, bytes_.data(), bytes_.size()) != stored) return bad("crc: does not match");
    schema_ = get<uint8_t>();
    return schema_ == kSchema ? Status() : bad("schema: unknown");
  }
  // Of a record that has two.
  Result<uint8_t> open_version() {
    Status status = open();
    if (status.ok() || schema_ == kPatchedSchema) return schema_;
    return status;
  }
  // Zero, and remembered, when there are too few bytes.
  template <typename T>
  T get() {
    T value{};
    if (bytes_.size() < sizeof value) {
      short_ = true;
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }
  size_t left() const { return bytes_.size(); }
  Status close() const {
    if (short_) return bad("length: fields are missing");
    if (!bytes_.empty()) return bad("length: bytes left over");
    return Status();
  }

 private:
  std::string_view bytes_;
  uint8_t schema_ = 0;
  bool short_ = false;
};

static_assert(std::endian::native == std::endian::little);

template <typename T>
void put_big(std::string& key, T value) {
  for (int shift = 8 * (int{sizeof value} - 1); shift >= 0; shift -= 8) {
    key.push_back(static_cast<char>(value >> shift));
  }
}

template <typename T>
T get_big(std::string_view& key) {
  T value = 0;
  for (size_t i = 0; i < sizeof value; ++i) {
    value = static_cast<T>(value << 8 | static_cast<uint8_t>(key[i]));
  }
  key.remove_prefix(sizeof value);
  return value;
}

}  // namespace

uint8_t class_of(uint64_t length) {
  FS3_CHECK(length > 0 && length <= kChunkBytesMax);
  uint64_t blocks = std::bit_ceil(uint64_t{blocks_of(length)});
  return static_cast<uint8_t>(std::countr_zero(blocks));
}

Status HeadRecord::check() const {
  auto valid = [](uint8_t slot) { return slot <= 1 || slot == kNoSlot; };
  if (!valid(committed_slot)) return bad("committed_slot: neither 0, 1 nor none");
  if (!valid(pending_slot)) return bad("pending_slot: neither 0, 1 nor none");
  if (committed_slot == pending_slot) return bad("pending_slot: equals committed_slot");
  return Status();
}

Status VersionRecord::check() const {
  if (info.version == 0) return bad("version: zero");
  if (info.kind == UpdateKind::kNone || info.kind > UpdateKind::kReplace)
    return bad("kind: unknown");
  if (info.length > kChunkBytesMax) return bad("length: over 64 MiB");
  if (stored_length > info.length) return bad("stored_length: over length");
  if (lost && (stored_length != 0 || info.length == 0))
    return bad("lost: does not fit length and stored_length");
  if (block.none() != (stored_length == 0)) return bad("block: does not fit stored_length");
  if (!block.none() && block.size_class >= kClasses) return bad("block: unknown size class");
  if (!block.none() && class_bytes(block.size_class) < stored_length)
    return bad("block: too small");
  if (checksums.size() != blocks_of(stored_length)) return bad("checksums: wrong number");
  if (first_patch > info.version) return bad("first_patch: over version");
  if (first_patch != 0 && block.none()) return bad("first_patch: no block to lie over");
  return Status();
}

std::string encode(const HeadRecord& record) {
  FS3_CHECK(record.check().ok());
  Writer out;
  out.put(record.committed_slot);
  out.put(record.pending_slot);
  return out.close();
}

Result<HeadRecord> decode_head(std::string_view bytes) {
  Reader in(bytes);
  Status status = in.open();
  if (!status.ok()) return status;
  HeadRecord record;
  record.committed_slot = in.get<uint8_t>();
  record.pending_slot = in.get<uint8_t>();
  status = in.close();
  if (status.ok()) status = record.check();
  if (!status.ok()) return status;
  return record;
}

std::string encode(const VersionRecord& record) {
  FS3_CHECK(record.check().ok());
  Writer out(record.first_patch == 0 ? kSchema : kPatchedSchema);
  out.put(static_cast<uint8_t>(record.info.kind));
  out.put<uint64_t>(record.info.version);
  out.put<uint32_t>(record.info.chain_version);
  out.put<uint32_t>(record.info.length);
  out.put<uint32_t>(record.info.checksum);
  out.put_bytes(record.info.identity.client_id.data(), record.info.identity.client_id.size());
  out.put<uint32_t>(record.info.identity.channel);
  out.put<uint64_t>(record.info.identity.sequence);
  out.put<uint32_t>(record.stored_length);
  out.put(record.lost ? kLostBlock : record.block.size_class);
  out.put<uint32_t>(record.block.index);
  if (record.first_patch != 0) out.put<uint64_t>(record.first_patch);
  out.put_bytes(record.checksums.data(), record.checksums.size() * sizeof(uint32_t));
  return out.close();
}

Result<VersionRecord> decode_version(std::string_view bytes) {
  Reader in(bytes);
  auto schema = in.open_version();
  if (!schema.ok()) return schema.status();
  VersionRecord record;
  record.info.kind = static_cast<UpdateKind>(in.get<uint8_t>());
  record.info.version = in.get<uint64_t>();
  record.info.chain_version = in.get<uint32_t>();
  record.info.length = in.get<uint32_t>();
  record.info.checksum = in.get<uint32_t>();
  record.info.identity.client_id = in.get<std::array<uint8_t, 16>>();
  record.info.identity.channel = in.get<uint32_t>();
  record.info.identity.sequence = in.get<uint64_t>();
  record.stored_length = in.get<uint32_t>();
  record.block.size_class = in.get<uint8_t>();
  record.block.index = in.get<uint32_t>();
  record.lost = record.block.size_class == kLostBlock;
  if (record.lost) record.block.size_class = kNoBlock;
  if (*schema == kPatchedSchema) {
    record.first_patch = in.get<uint64_t>();
    if (record.first_patch == 0) return bad("first_patch: zero");
  }
  // The number of sums is what is left, not what a field says.
  size_t count = in.left() / sizeof(uint32_t);
  if (count > blocks_of(kChunkBytesMax)) return bad("checksums: too many");
  record.checksums.resize(count);
  for (uint32_t& sum : record.checksums) sum = in.get<uint32_t>();
  Status status = in.close();
  if (status.ok()) status = record.check();
  if (!status.ok()) return status;
  return record;
}

std::string encode(const PatchRecord& record) {
  Writer out;
  out.put<uint32_t>(record.first_block);
  out.put_bytes(record.bytes.data(), record.bytes.size());
  return out.close();
}

Result<PatchRecord> decode_patch(std::string_view bytes) {
  Reader in(bytes);
  Status status = in.open();
  if (!status.ok()) return status;
  PatchRecord record;
  record.first_block = in.get<uint32_t>();
  size_t size = in.left();
  if (size == 0 || size % kBlockBytes != 0) return bad("bytes: no whole blocks");
  if (size > kChunkBytesMax || record.first_block > blocks_of(kChunkBytesMax - size)) {
    return bad("first_block: the patch ends over 64 MiB");
  }
  record.bytes = bytes.substr(bytes.size() - size - sizeof(uint32_t), size);
  return record;
}

std::string encode(const TargetRecord& record) {
  Writer out;
  out.put<uint32_t>(record.chain_id);
  return out.close();
}

Result<TargetRecord> decode_target(std::string_view bytes) {
  Reader in(bytes);
  Status status = in.open();
  if (!status.ok()) return status;
  TargetRecord record{in.get<uint32_t>()};
  status = in.close();
  if (!status.ok()) return status;
  return record;
}

std::string encode(const OpenedRecord& record) {
  Writer out;
  out.put<uint64_t>(record.times);
  return out.close();
}

Result<OpenedRecord> decode_opened(std::string_view bytes) {
  Reader in(bytes);
  Status status = in.open();
  if (!status.ok()) return status;
  OpenedRecord record{in.get<uint64_t>()};
  status = in.close();
  if (!status.ok()) return status;
  return record;
}

std::string encode(const DedupRow& record) {
  Writer out;
  out.put<uint64_t>(record.identity.sequence);
  out.put<uint64_t>(record.chunk.inode);
  out.put<uint64_t>(record.chunk.index);
  out.put<uint64_t>(record.version);
  out.put<uint32_t>(record.chunk_length);
  out.put<uint32_t>(record.checksum);
  if (record.touched != 0) out.put<uint64_t>(record.touched);
  return out.close();
}

Result<DedupRow> decode_dedup(UpdateIdentity identity, std::string_view bytes) {
  Reader in(bytes);
  Status status = in.open();
  if (!status.ok()) return status;
  DedupRow record;
  record.identity = identity;
  record.identity.sequence = in.get<uint64_t>();
  record.chunk.inode = in.get<uint64_t>();
  record.chunk.index = in.get<uint64_t>();
  record.version = in.get<uint64_t>();
  record.chunk_length = in.get<uint32_t>();
  record.checksum = in.get<uint32_t>();
  bool ordered = in.left() > 0;
  if (ordered) record.touched = in.get<uint64_t>();
  status = in.close();
  if (status.ok() && ordered && record.touched == 0) status = bad("touched: zero");
  if (status.ok() && record.chunk_length > kChunkBytesMax)
    status = bad("chunk_length: over 64 MiB");
  if (!status.ok()) return status;
  return record;
}

std::string target_prefix(RowKind kind, TargetId target) {
  std::string key(1, static_cast<char>(kind));
  put_big<uint64_t>(key, target);
  return key;
}

std::string chunk_key(TargetId target, ChunkId chunk, ChunkRow row) {
  std::string key = target_prefix(RowKind::kChunk, target);
  put_big<uint64_t>(key, chunk.inode);
  put_big<uint64_t>(key, chunk.index);
  put_big<uint8_t>(key, static_cast<uint8_t>(row));
  return key;
}

std::string patch_key(TargetId target, ChunkId chunk, ChunkVersion version) {
  std::string key = chunk_key(target, chunk, ChunkRow::kPatch);
  put_big<uint64_t>(key, version);
  return key;
}

std::string dedup_key(TargetId target, const UpdateIdentity& identity) {
  std::string key = target_prefix(RowKind::kDedup, target);
  key.append(reinterpret_cast<const char*>(identity.client_id.data()), identity.client_id.size());
  put_big<uint32_t>(key, identity.channel);
  return key;
}

std::string target_key(TargetId target) { return target_prefix(RowKind::kTarget, target); }

std::string bad_key(BlockAddress block) {
  std::string key(1, static_cast<char>(RowKind::kBad));
  put_big<uint8_t>(key, block.size_class);
  put_big<uint32_t>(key, block.index);
  return key;
}

std::string opened_key() { return std::string(1, static_cast<char>(RowKind::kOpened)); }

Result<ParsedKey> parse_key(std::string_view key) {
  if (key.empty()) return bad("key: empty");
  ParsedKey parsed;
  parsed.kind = static_cast<RowKind>(key[0]);
  key.remove_prefix(1);
  auto has = [&](size_t size) { return key.size() == size; };
  switch (parsed.kind) {
    case RowKind::kChunk:
      if (!has(25) && !has(33)) return bad("key: chunk key of a wrong length");
      parsed.target = get_big<uint64_t>(key);
      parsed.chunk.inode = get_big<uint64_t>(key);
      parsed.chunk.index = get_big<uint64_t>(key);
      parsed.row = static_cast<ChunkRow>(get_big<uint8_t>(key));
      if (parsed.row > ChunkRow::kPatch) return bad("key: unknown row of a chunk");
      if (has(8) != (parsed.row == ChunkRow::kPatch)) {
        return bad("key: chunk key of a wrong length");
      }
      if (parsed.row == ChunkRow::kPatch) parsed.version = get_big<uint64_t>(key);
      return parsed;
    case RowKind::kDedup:
      if (!has(28)) return bad("key: dedup key of a wrong length");
      parsed.target = get_big<uint64_t>(key);
      std::memcpy(parsed.identity.client_id.data(), key.data(), 16);
      key.remove_prefix(16);
      parsed.identity.channel = get_big<uint32_t>(key);
      return parsed;
    case RowKind::kBad:
      if (!has(5)) return bad("key: bad-block key of a wrong length");
      parsed.block.size_class = get_big<uint8_t>(key);
      parsed.block.index = get_big<uint32_t>(key);
      if (parsed.block.size_class >= kClasses) return bad("key: unknown size class");
      return parsed;
    case RowKind::kTarget:
      if (!has(8)) return bad("key: target key of a wrong length");
      parsed.target = get_big<uint64_t>(key);
      return parsed;
    case RowKind::kOpened:
      if (!has(0)) return bad("key: open counter with a suffix");
      return parsed;
  }
  return bad("key: unknown kind of row");
}

}  // namespace fs3::engine
