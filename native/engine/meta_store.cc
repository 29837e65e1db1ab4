#include "engine/meta_store.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <cerrno>

#include "base/check.h"

namespace fs3::engine {
namespace {

constexpr size_t kMiB = 1 << 20;

Status translate(const rocksdb::Status& status, const std::string& directory, const char* call) {
  if (status.ok()) return Status();
  uint32_t code = EIO;
  if (status.IsNoSpace()) code = ENOSPC;
  if (status.IsCorruption()) code = EBADMSG;
  if (status.IsNotFound() || status.IsInvalidArgument()) code = ENOENT;
  if (status.IsBusy() || status.ToString().find("lock") != std::string::npos) code = EBUSY;
  return Status(code, "engine/meta", directory + ": " + call + ": " + status.ToString());
}

// Small: chunk metadata is in our own memory, RocksDB keeps the log and the recovery.
rocksdb::Options database_options(bool create, rocksdb::Env* env) {
  rocksdb::Options options;
  options.create_if_missing = create;
  if (env != nullptr) options.env = env;
  options.write_buffer_size = 16 * kMiB;
  options.max_write_buffer_number = 2;
  options.max_total_wal_size = 64 * kMiB;
  options.max_background_jobs = 2;
  options.max_open_files = 64;
  options.target_file_size_base = 16 * kMiB;
  options.max_bytes_for_level_base = 128 * kMiB;
  options.compression = rocksdb::kNoCompression;
  options.keep_log_file_num = 2;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.stats_dump_period_sec = 0;
  options.paranoid_checks = true;
  options.track_and_verify_wals_in_manifest = true;
  // Power loss may tear records that nobody was promised; the argument is in FORMAT.md.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kMiB);
  table.checksum = rocksdb::kCRC32c;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// The first key after all that begin with `prefix`. REQUIRES: not all bytes are 255.
std::string after_prefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 255) prefix.pop_back();
  FS3_CHECK(!prefix.empty());
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

rocksdb::Status add(rocksdb::WriteBatch& batch, const MetaChange& change) {
  switch (change.kind) {
    case MetaChange::Kind::kPut:
      return batch.Put(change.key, change.value);
    case MetaChange::Kind::kDelete:
      return batch.Delete(change.key);
    case MetaChange::Kind::kDeletePrefix:
      return batch.DeleteRange(change.key, after_prefix(change.key));
  }
  return rocksdb::Status::InvalidArgument("unknown change");
}

}  // namespace

MetaStore::~MetaStore() = default;

Result<std::unique_ptr<MetaStore>> MetaStore::open(const std::string& directory, bool create,
                                                   rocksdb::Env* env) {
  rocksdb::DB* db = nullptr;
  auto status = rocksdb::DB::Open(database_options(create, env), directory, &db);
  if (!status.ok()) return translate(status, directory, "open");
  std::unique_ptr<MetaStore> store(new MetaStore);
  store->directory_ = directory;
  store->db_.reset(db);
  return store;
}

Status MetaStore::write(const std::vector<const std::vector<MetaChange>*>& batches, bool sync) {
  rocksdb::WriteBatch batch;
  for (const auto* changes : batches) {
    for (const MetaChange& change : *changes) {
      auto status = add(batch, change);
      if (!status.ok()) return translate(status, directory_, "build batch");
    }
  }
  rocksdb::WriteOptions options;
  options.sync = sync;
  return translate(db_->Write(options, &batch), directory_, "write");
}

Status MetaStore::scan(Function<Status(std::string_view, std::string_view)> visit) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.verify_checksums = true;
  std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(options));
  for (row->SeekToFirst(); row->Valid(); row->Next()) {
    Status status = visit(std::string_view(row->key().data(), row->key().size()),
                          std::string_view(row->value().data(), row->value().size()));
    if (!status.ok()) return status;
  }
  return translate(row->status(), directory_, "scan");
}

}  // namespace fs3::engine
