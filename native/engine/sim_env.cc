#include "engine/sim_env.h"

#include <cstdarg>

#include "base/check.h"

namespace fs3::engine {
namespace {

rocksdb::Status translate(const Status& status) {
  return status.ok() ? rocksdb::Status::OK() : rocksdb::Status::IOError(status.to_string());
}

struct NoLog final : rocksdb::Logger {
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

class SimEnv::File final : public rocksdb::WritableFileWrapper {
 public:
  File(std::unique_ptr<rocksdb::WritableFile> file, std::string name, SimEnv& env)
      : rocksdb::WritableFileWrapper(file.get()),
        file_(std::move(file)),
        name_(std::move(name)),
        env_(env) {}

  rocksdb::Status Append(const rocksdb::Slice& data) override {
    rocksdb::Status status = env_.may(disk::SimFault::On::kWrite, name_);
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
    rocksdb::Status may = env_.may(disk::SimFault::On::kSync, name_);
    if (!may.ok()) return may;
    std::lock_guard lock(env_.mutex_);
    auto& size = env_.sizes_[name_];
    bool lie = env_.lies_ && name_.ends_with(".log");
    if (status.ok() && !lie) size.synced = size.written;
    return status;
  }

  const std::unique_ptr<rocksdb::WritableFile> file_;
  const std::string name_;
  SimEnv& env_;
};

SimEnv::SimEnv(disk::SimMedium& medium, uint64_t seed)
    : rocksdb::EnvWrapper(rocksdb::Env::Default()), medium_(medium), random_(seed) {}

SimEnv::SimEnv(disk::SimMedium& medium, uint64_t seed, Executor& background)
    : rocksdb::EnvWrapper(rocksdb::NewMemEnv(rocksdb::Env::Default())),
      medium_(medium),
      memory_(target()),
      background_(&background),
      random_(seed) {}

rocksdb::Status SimEnv::power(const std::string& name) { return translate(medium_.touch(name)); }

rocksdb::Status SimEnv::may(disk::SimFault::On on, const std::string& name) {
  return translate(medium_.touch(on, name));
}

// ---- files

rocksdb::Status SimEnv::NewWritableFile(const std::string& name,
                                        std::unique_ptr<rocksdb::WritableFile>* result,
                                        const rocksdb::EnvOptions& options) {
  std::unique_ptr<rocksdb::WritableFile> file;
  rocksdb::Status status = power(name);
  if (status.ok()) status = target()->NewWritableFile(name, &file, options);
  if (!status.ok()) return status;
  std::lock_guard lock(mutex_);
  sizes_[name] = {};
  *result = std::make_unique<File>(std::move(file), name, *this);
  return status;
}

rocksdb::Status SimEnv::RenameFile(const std::string& from, const std::string& to) {
  rocksdb::Status status = power(from);
  if (status.ok()) status = target()->RenameFile(from, to);
  std::lock_guard lock(mutex_);
  if (status.ok() && sizes_.contains(from)) {
    sizes_[to] = sizes_[from];
    sizes_.erase(from);
  }
  return status;
}

rocksdb::Status SimEnv::DeleteFile(const std::string& name) {
  rocksdb::Status status = power(name);
  if (status.ok()) status = target()->DeleteFile(name);
  std::lock_guard lock(mutex_);
  if (status.ok()) sizes_.erase(name);
  return status;
}

// The log of a database in memory is for nobody, and a thread of RocksDB would flush it.
rocksdb::Status SimEnv::NewLogger(const std::string& name,
                                  std::shared_ptr<rocksdb::Logger>* result) {
  if (!memory_) return target()->NewLogger(name, result);
  *result = std::make_shared<NoLog>();
  return rocksdb::Status::OK();
}

void SimEnv::lose_unsynced() {
  std::lock_guard lock(mutex_);
  for (auto& [name, size] : sizes_) {
    uint64_t rest = size.written - size.synced;
    uint64_t kept = size.synced + (rest == 0 ? 0 : random_() % (rest + 1));
    std::string bytes;
    if (kept < size.written && rocksdb::ReadFileToString(target(), name, &bytes).ok()) {
      bytes.resize(kept);
      auto status = rocksdb::WriteStringToFile(target(), bytes, name);
      FS3_CHECK(status.ok());
      ++cut_;
    }
    size = {kept, kept};
  }
}

void SimEnv::copy_durable(const SimEnv& other) {
  std::scoped_lock lock(mutex_, other.mutex_);
  for (const auto& [name, size] : other.sizes_) {
    std::string bytes;
    auto status = rocksdb::ReadFileToString(other.target(), name, &bytes);
    FS3_CHECK(status.ok() && bytes.size() >= size.synced);
    bytes.resize(size.synced);
    target()->CreateDirIfMissing(name.substr(0, name.rfind('/')));
    status = rocksdb::WriteStringToFile(target(), bytes, name);
    FS3_CHECK(status.ok());
    sizes_[name] = {size.synced, size.synced};
  }
}

// ---- background work

void SimEnv::Schedule(void (*function)(void*), void* argument, Priority priority, void* tag,
                      void (*unscheduled)(void*)) {
  if (background_ == nullptr) {
    return target()->Schedule(function, argument, priority, tag, unscheduled);
  }
  work_.push_back({function, argument, priority, tag, unscheduled});
  background_->submit([this] { run_one(); });
}

int SimEnv::UnSchedule(void* tag, Priority priority) {
  if (background_ == nullptr) return target()->UnSchedule(tag, priority);
  std::deque<Work> gone, kept;
  for (const Work& work : work_) {
    (work.tag == tag && work.priority == priority ? gone : kept).push_back(work);
  }
  work_ = std::move(kept);
  for (const Work& work : gone) {
    if (work.unscheduled != nullptr) work.unscheduled(work.argument);
  }
  return static_cast<int>(gone.size());
}

// Perhaps it was unscheduled, or done before a database was closed.
void SimEnv::run_one() {
  if (work_.empty()) return;
  Work work = work_.front();
  work_.pop_front();
  work.function(work.argument);
}

void SimEnv::finish_background() {
  while (!work_.empty()) run_one();
}

}  // namespace fs3::engine
