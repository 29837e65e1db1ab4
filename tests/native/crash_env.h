// A RocksDB Env whose files forget what was not synced when the power of a SimMedium goes off: the
// engine's metadata and its data then fail at the same moment.
#pragma once

#include <rocksdb/env.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include "disk/sim_disk.h"

namespace fs3::test {

class CrashEnv final : public rocksdb::EnvWrapper {
 public:
  CrashEnv(disk::SimMedium& medium, uint64_t seed)
      : rocksdb::EnvWrapper(rocksdb::Env::Default()), medium_(medium), random_(seed) {}
  const char* Name() const override { return "CrashEnv"; }

  rocksdb::Status NewWritableFile(const std::string& name,
                                  std::unique_ptr<rocksdb::WritableFile>* result,
                                  const rocksdb::EnvOptions& options) override {
    std::unique_ptr<rocksdb::WritableFile> file;
    rocksdb::Status status = power(name);
    if (status.ok()) status = target()->NewWritableFile(name, &file, options);
    if (!status.ok()) return status;
    std::lock_guard lock(mutex_);
    sizes_[name] = {};
    *result = std::make_unique<File>(std::move(file), name, *this);
    return status;
  }

  rocksdb::Status RenameFile(const std::string& from, const std::string& to) override {
    rocksdb::Status status = power(from);
    if (status.ok()) status = target()->RenameFile(from, to);
    std::lock_guard lock(mutex_);
    if (status.ok() && sizes_.contains(from)) {
      sizes_[to] = sizes_[from];
      sizes_.erase(from);
    }
    return status;
  }

  rocksdb::Status DeleteFile(const std::string& name) override {
    rocksdb::Status status = power(name);
    if (status.ok()) status = target()->DeleteFile(name);
    std::lock_guard lock(mutex_);
    if (status.ok()) sizes_.erase(name);
    return status;
  }

  // What power loss leaves: synced bytes, and of the rest a random first part. REQUIRES: the
  // database is closed, the power is off.
  void lose_unsynced() {
    std::lock_guard lock(mutex_);
    for (auto& [name, size] : sizes_) {
      uint64_t rest = size.written - size.synced;
      uint64_t kept = size.synced + (rest == 0 ? 0 : random_() % (rest + 1));
      if (kept < size.written && truncate(name.c_str(), static_cast<off_t>(kept)) == 0) ++cut_;
      size = {kept, kept};
    }
  }
  // How many files lost something so far.
  uint64_t cut() const { return cut_; }

 private:
  struct Size {
    uint64_t written = 0, synced = 0;
  };

  class File final : public rocksdb::WritableFileWrapper {
   public:
    File(std::unique_ptr<rocksdb::WritableFile> file, std::string name, CrashEnv& env)
        : rocksdb::WritableFileWrapper(file.get()),
          file_(std::move(file)),
          name_(std::move(name)),
          env_(env) {}

    rocksdb::Status Append(const rocksdb::Slice& data) override {
      rocksdb::Status status = env_.power(name_);
      if (status.ok()) status = file_->Append(data);
      std::lock_guard lock(env_.mutex_);
      if (status.ok()) env_.sizes_[name_].written += data.size();
      return status;
    }
    rocksdb::Status Append(const rocksdb::Slice& data,
                           const rocksdb::DataVerificationInfo&) override {
      return Append(data);
    }
    rocksdb::Status Sync() override { return synced(file_->Sync()); }
    rocksdb::Status Fsync() override { return synced(file_->Fsync()); }

   private:
    // The power may go between the request and the device's answer.
    rocksdb::Status synced(rocksdb::Status status) {
      rocksdb::Status power = env_.power(name_);
      if (!power.ok()) return power;
      std::lock_guard lock(env_.mutex_);
      auto& size = env_.sizes_[name_];
      if (status.ok()) size.synced = size.written;
      return status;
    }

    const std::unique_ptr<rocksdb::WritableFile> file_;
    const std::string name_;
    CrashEnv& env_;
  };

  rocksdb::Status power(const std::string& name) {
    Status status = medium_.touch(name);
    return status.ok() ? rocksdb::Status::OK() : rocksdb::Status::IOError(status.to_string());
  }

  disk::SimMedium& medium_;
  std::mutex mutex_;
  std::mt19937_64 random_;             // guarded by mutex_
  std::map<std::string, Size> sizes_;  // guarded by mutex_
  uint64_t cut_ = 0;
};

}  // namespace fs3::test
