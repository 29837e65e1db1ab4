#include "disk/posix_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "disk/io_queue.h"

namespace fs3::disk {
namespace {

constexpr const char* kWhere = "disk";

Status call_error(int error, const std::string& path, const char* call) {
  return Status(static_cast<uint32_t>(error), kWhere,
                path + ": " + call + ": " + std::strerror(error));
}

// Closes when it leaves its scope.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

struct Counters {
  std::atomic<uint64_t> reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, syncs = 0,
                        errors = 0;
};

void check_aligned(uint64_t offset, const Buffer& buffer) {
  FS3_CHECK(offset % kAlignment == 0);
  FS3_CHECK(buffer.size() % kAlignment == 0 && !buffer.empty());
  FS3_CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment == 0);
}

class PosixFile final : public File {
 public:
  PosixFile(int fd, std::string path, IoQueue& queue, Counters& counters)
      : descriptor_(std::make_shared<Descriptor>(fd)),
        fd_(fd),
        path_(std::move(path)),
        queue_(queue),
        counters_(counters) {}

  void read(uint64_t offset, Buffer buffer, Function<void(Result<size_t>)> done) override {
    check_aligned(offset, buffer);
    auto request = make(IoRequest::Kind::kRead, offset, buffer.size());
    request->buffer = std::move(buffer);
    request->done = [this, done = std::move(done)](int64_t result) mutable {
      if (result < 0) return done(failure(result, "read"));
      ++counters_.reads;
      counters_.read_bytes += static_cast<uint64_t>(result);
      done(static_cast<size_t>(result));
    };
    queue_.submit(std::move(request));
  }

  void write(uint64_t offset, Buffer buffer, Function<void(Status)> done) override {
    check_aligned(offset, buffer);
    auto request = make(IoRequest::Kind::kWrite, offset, buffer.size());
    request->buffer = std::move(buffer);
    request->done = [this, done = std::move(done)](int64_t result) mutable {
      if (result < 0) return done(failure(result, "write"));
      ++counters_.writes;
      counters_.written_bytes += static_cast<uint64_t>(result);
      done(Status());
    };
    queue_.submit(std::move(request));
  }

  void datasync(Function<void(Status)> done) override {
    submit_plain(IoRequest::Kind::kDatasync, 0, 0, "fdatasync", std::move(done));
    ++counters_.syncs;
  }

  Status datasync_now() override {
    ++counters_.syncs;
    if (fdatasync(fd_) == 0) return Status();
    return failure(-errno, "fdatasync");
  }

  void allocate(uint64_t offset, uint64_t length, Function<void(Status)> done) override {
    submit_plain(IoRequest::Kind::kAllocate, offset, length, "fallocate", std::move(done));
  }

  void punch(uint64_t offset, uint64_t length, Function<void(Status)> done) override {
    submit_plain(IoRequest::Kind::kPunch, offset, length, "fallocate(PUNCH_HOLE)", std::move(done));
  }

  Result<uint64_t> size() const override {
    struct stat info;
    if (fstat(fd_, &info) != 0) return call_error(errno, path_, "fstat");
    return static_cast<uint64_t>(info.st_size);
  }

 private:
  std::unique_ptr<IoRequest> make(IoRequest::Kind kind, uint64_t offset, uint64_t length) {
    auto request = std::make_unique<IoRequest>();
    request->kind = kind;
    request->fd = fd_;
    request->keeps_open = descriptor_;
    request->offset = offset;
    request->length = length;
    return request;
  }

  void submit_plain(IoRequest::Kind kind, uint64_t offset, uint64_t length, const char* call,
                    Function<void(Status)> done) {
    auto request = make(kind, offset, length);
    request->done = [this, call, kind, offset, length,
                     done = std::move(done)](int64_t result) mutable {
      if (result == -EOPNOTSUPP) result = without_extents(kind, offset + length);
      done(result < 0 ? failure(result, call) : Status());
    };
    queue_.submit(std::move(request));
  }

  // A file system without fallocate: space comes with the writes, and does not go back.
  int64_t without_extents(IoRequest::Kind kind, uint64_t end) {
    if (kind != IoRequest::Kind::kAllocate) return 0;
    struct stat info;
    if (fstat(fd_, &info) != 0) return -errno;
    if (static_cast<uint64_t>(info.st_size) >= end) return 0;
    return ftruncate(fd_, static_cast<off_t>(end)) == 0 ? 0 : -errno;
  }

  Status failure(int64_t result, const char* call) {
    ++counters_.errors;
    return call_error(static_cast<int>(-result), path_, call);
  }

  // Requests share it: the number must not name another file while one of them is on its way.
  const std::shared_ptr<Descriptor> descriptor_;
  const int fd_;
  const std::string path_;
  IoQueue& queue_;
  Counters& counters_;
};

Status write_all(int fd, const std::string& bytes, const std::string& path) {
  size_t written = 0;
  while (written < bytes.size()) {
    ssize_t count = ::write(fd, bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return call_error(errno, path, "write");
    written += static_cast<size_t>(count);
  }
  return Status();
}

class PosixDisk final : public Disk {
 public:
  explicit PosixDisk(PosixDiskOptions options) : options_(std::move(options)) {}

  Status init(Reactor& reactor);
  Result<std::unique_ptr<File>> open(const std::string& name) override;
  Status sync_directory(const std::string& name) override;
  Status make_directory(const std::string& name) override;
  Result<std::string> read_small(const std::string& name, size_t limit) override;
  Status write_small(const std::string& name, const std::string& bytes) override;
  Result<DiskSpace> space() const override;
  DiskStatistics statistics() const override;

 private:
  std::string path_of(const std::string& name) const {
    return name.empty() ? options_.directory : options_.directory + "/" + name;
  }

  const PosixDiskOptions options_;
  bool direct_ = false;
  Counters counters_;
  std::unique_ptr<IoQueue> queue_;
};

Status PosixDisk::init(Reactor& reactor) {
  const std::string& path = options_.directory;
  if (options_.create && mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return call_error(errno, path, "mkdir");
  }
  Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return call_error(errno, path, "open directory");
  if (options_.use_direct) {
    Descriptor probe(
        openat(directory.get(), ".direct", O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600));
    direct_ = probe.get() >= 0;
    unlinkat(directory.get(), ".direct", 0);
  }
  if (options_.use_uring) {
    auto queue = make_uring_queue(reactor);
    if (queue.ok()) queue_ = std::move(*queue);
  }
  if (!queue_) queue_ = make_thread_queue(reactor);
  return Status();
}

Result<std::unique_ptr<File>> PosixDisk::open(const std::string& name) {
  std::string path = path_of(name);
  int flags = O_RDWR | O_CREAT | O_CLOEXEC | (direct_ ? O_DIRECT : 0);
  int fd = ::open(path.c_str(), flags, 0600);
  if (fd < 0) return call_error(errno, path, "open");
  return std::unique_ptr<File>(new PosixFile(fd, std::move(path), *queue_, counters_));
}

Status PosixDisk::sync_directory(const std::string& name) {
  std::string path = path_of(name);
  Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return call_error(errno, path, "open directory");
  if (fsync(directory.get()) != 0) return call_error(errno, path, "fsync directory");
  return Status();
}

Status PosixDisk::make_directory(const std::string& name) {
  std::string path = path_of(name);
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return call_error(errno, path, "mkdir");
  return sync_directory("");
}

Result<std::string> PosixDisk::read_small(const std::string& name, size_t limit) {
  std::string path = path_of(name);
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return call_error(errno, path, "open");
  std::string bytes(limit + 1, '\0');
  size_t got = 0;
  while (got < bytes.size()) {
    ssize_t count = ::read(file.get(), bytes.data() + got, bytes.size() - got);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return call_error(errno, path, "read");
    if (count == 0) break;
    got += static_cast<size_t>(count);
  }
  if (got > limit) return call_error(EFBIG, path, "read");
  bytes.resize(got);
  return bytes;
}

Status PosixDisk::write_small(const std::string& name, const std::string& bytes) {
  std::string path = path_of(name);
  std::string temporary = path + ".new";
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (file.get() < 0) return call_error(errno, temporary, "open");
  Status status = write_all(file.get(), bytes, temporary);
  if (!status.ok()) return status;
  if (fsync(file.get()) != 0) return call_error(errno, temporary, "fsync");
  if (rename(temporary.c_str(), path.c_str()) != 0) return call_error(errno, path, "rename");
  size_t slash = name.rfind('/');
  return sync_directory(slash == std::string::npos ? "" : name.substr(0, slash));
}

Result<DiskSpace> PosixDisk::space() const {
  struct statvfs info;
  if (statvfs(options_.directory.c_str(), &info) != 0) {
    return call_error(errno, options_.directory, "statvfs");
  }
  return DiskSpace{info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize};
}

DiskStatistics PosixDisk::statistics() const {
  return {.method = queue_->name(),
          .direct = direct_,
          .reads = counters_.reads,
          .read_bytes = counters_.read_bytes,
          .writes = counters_.writes,
          .written_bytes = counters_.written_bytes,
          .syncs = counters_.syncs,
          .errors = counters_.errors};
}

}  // namespace

Result<std::unique_ptr<Disk>> open_posix_disk(Reactor& reactor, PosixDiskOptions options) {
  auto disk = std::make_unique<PosixDisk>(std::move(options));
  Status status = disk->init(reactor);
  if (!status.ok()) return status;
  return std::unique_ptr<Disk>(std::move(disk));
}

}  // namespace fs3::disk
