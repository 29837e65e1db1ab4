// Recovery of a disk: arbitrary rows, sorted as the store gives them, through the loader. Input:
// rows of key and value, each a length byte and bytes; with the top bit of the first byte, values
// get their CRC. What the loader takes has to be sound: no block in two chunks.
#include <cerrno>
#include <map>
#include <set>

#include "base/crc32c.h"
#include "engine/loader.h"
#include "fuzz.h"

namespace fs3::fuzz {
namespace {

using namespace engine;

// Block files of fixed sizes; nobody reads or writes.
class NoFile final : public disk::File {
 public:
  void read(uint64_t, Buffer, Function<void(Result<size_t>)>) override { FS3_CHECK(false); }
  void write(uint64_t, Buffer, Function<void(Status)>) override { FS3_CHECK(false); }
  void datasync(Function<void(Status)>) override { FS3_CHECK(false); }
  Status datasync_now() override { return Status(); }
  void allocate(uint64_t, uint64_t, Function<void(Status)>) override { FS3_CHECK(false); }
  void punch(uint64_t, uint64_t, Function<void(Status)> done) override { done(Status()); }
  Result<uint64_t> size() const override { return uint64_t{256} << 20; }
};

class NoDisk final : public disk::Disk {
 public:
  Result<std::unique_ptr<disk::File>> open(const std::string&) override {
    return std::unique_ptr<disk::File>(std::make_unique<NoFile>());
  }
  Status sync_directory(const std::string&) override { return Status(); }
  Status make_directory(const std::string&) override { return Status(); }
  Result<std::string> read_small(const std::string&, size_t) override {
    return Status(ENOENT, "", "");
  }
  Status write_small(const std::string&, const std::string&) override { return Status(); }
  Result<disk::DiskSpace> space() const override { return disk::DiskSpace{1ull << 40, 1ull << 39}; }
  disk::DiskStatistics statistics() const override { return {}; }
};

using Rows = std::map<std::string, std::string>;

Rows take_rows(std::string_view input) {
  Input in(input);
  bool close = (in.byte() & 0x80) != 0;
  Rows rows;
  while (!in.empty()) {
    std::string key(in.short_string());
    std::string value(in.short_string());
    if (close) {
      // A patch is longer than what the input can say.
      auto parsed = parse_key(key);
      if (parsed.ok() && parsed->row == ChunkRow::kPatch) value.append(kBlockBytes, 'p');
      uint32_t crc = crc32c(0, value.data(), value.size());
      value.append(reinterpret_cast<const char*>(&crc), sizeof crc);
    }
    rows[key] = value;
  }
  return rows;
}

void check_blocks(const std::map<TargetId, Target>& targets) {
  std::set<BlockAddress> seen;
  for (const auto& [id, target] : targets) {
    for (const auto& [chunk_id, chunk] : target.chunks) {
      FS3_CHECK(chunk.committed || chunk.pending);
      std::set<BlockAddress> own;
      for (const VersionRef& version : {chunk.committed, chunk.pending}) {
        if (!version) continue;
        FS3_CHECK(record_of(*version).check().ok());
        if (version->block) own.insert(version->block->address());
      }
      for (BlockAddress block : own) FS3_CHECK(seen.insert(block).second);
    }
  }
}

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  NoDisk disk;
  BlockStore blocks(disk, 0, [](Status) {});
  FS3_CHECK(blocks.open().ok());
  std::map<TargetId, Target> targets;
  Loader loader(blocks, targets, std::make_shared<uint64_t>(0));
  for (const auto& [key, value] : take_rows(input)) {
    Status status = loader.add(key, value);
    if (status.ok()) continue;
    FS3_CHECK(status.code() == EBADMSG && !status.detail().empty());
    return false;
  }
  if (!loader.finish_chunk().ok()) return false;
  FS3_CHECK(blocks.pool().consistent());
  check_blocks(targets);
  blocks.finish_recovery();
  return true;
}

}  // namespace fs3::fuzz
