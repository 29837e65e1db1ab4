// SimEnv: a RocksDB Env whose files forget what was not synced when the power of a SimMedium goes
// off: the engine's metadata and its data then fail at the same moment, and for the same reasons.
//
// Files are those of a base Env: of the host, or in memory. Directory entries are durable at once.
// With an executor, RocksDB's background work runs there, and RocksDB starts no thread that touches
// a file.
//
// Thread safety: as rocksdb::Env. The medium and the executor must outlive the Env, the Env the
// database.
#pragma once

#include <rocksdb/env.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include "base/executor.h"
#include "disk/sim_disk.h"

namespace fs3::engine {

class SimEnv final : public rocksdb::EnvWrapper {
 public:
  // Files of the host, threads of RocksDB.
  SimEnv(disk::SimMedium& medium, uint64_t seed);
  // Files in memory, background work on `background`.
  SimEnv(disk::SimMedium& medium, uint64_t seed, Executor& background);

  const char* Name() const override { return "SimEnv"; }

  // What power loss leaves: synced bytes, and of the rest a random first part. REQUIRES: the
  // database is closed, the power is off.
  void lose_unsynced();
  // How many files lost something so far.
  uint64_t cut() const { return cut_; }
  // A sync of the write-ahead log from now on says ok and does nothing: a lying device, or code
  // that forgot it.
  void lie_about_log() { lies_ = true; }
  // Runs the background work that waits. Before a database is closed, which would wait for it.
  void finish_background();
  // Puts the durable bytes of the other's files in here. REQUIRES: no database is open here.
  void copy_durable(const SimEnv& other);

  rocksdb::Status NewWritableFile(const std::string& name,
                                  std::unique_ptr<rocksdb::WritableFile>* result,
                                  const rocksdb::EnvOptions& options) override;
  rocksdb::Status RenameFile(const std::string& from, const std::string& to) override;
  rocksdb::Status DeleteFile(const std::string& name) override;
  rocksdb::Status NewLogger(const std::string& name,
                            std::shared_ptr<rocksdb::Logger>* result) override;
  void Schedule(void (*function)(void*), void* argument, Priority priority, void* tag,
                void (*unscheduled)(void*)) override;
  int UnSchedule(void* tag, Priority priority) override;

 private:
  class File;
  struct Size {
    uint64_t written = 0, synced = 0;
  };
  struct Work {
    void (*function)(void*);
    void* argument;
    Priority priority;
    void* tag;
    void (*unscheduled)(void*);
  };

  rocksdb::Status power(const std::string& name);
  rocksdb::Status may(disk::SimFault::On on, const std::string& name);
  void run_one();

  disk::SimMedium& medium_;
  std::unique_ptr<rocksdb::Env> memory_;  // null: the host's files
  Executor* background_ = nullptr;        // null: threads
  std::deque<Work> work_;                 // the executor's
  bool lies_ = false;
  mutable std::mutex mutex_;
  std::mt19937_64 random_;             // guarded by mutex_
  std::map<std::string, Size> sizes_;  // guarded by mutex_
  uint64_t cut_ = 0;
};

}  // namespace fs3::engine
