// The engine's RocksDB: an ordered, atomic, durable log of small rows. Everything in it is also in
// memory, so it is only written while running and read once, at open.
//
// Thread safety: write() from any thread. Durability: write(sync = true) survives power loss
// together with every earlier write; sync = false survives the death of the process.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/function.h"
#include "base/status.h"

namespace rocksdb {
class DB;
class Env;
}  // namespace rocksdb

namespace fs3::engine {

struct MetaChange {
  enum class Kind : uint8_t { kPut, kDelete, kDeletePrefix };
  Kind kind = Kind::kPut;
  std::string key;    // kDeletePrefix: all keys that begin so
  std::string value;  // kPut
};

class MetaStore {
 public:
  // `env` may be null. Errors name the directory.
  static Result<std::unique_ptr<MetaStore>> open(const std::string& directory, bool create,
                                                 rocksdb::Env* env);
  ~MetaStore();

  // All changes or none.
  Status write(const std::vector<const std::vector<MetaChange>*>& batches, bool sync);
  Status write(const std::vector<MetaChange>& changes, bool sync) {
    return write(std::vector<const std::vector<MetaChange>*>{&changes}, sync);
  }
  // Every row in the order of keys; ends early with the visitor's error.
  Status scan(Function<Status(std::string_view key, std::string_view value)> visit);

 private:
  MetaStore() = default;
  std::string directory_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace fs3::engine
