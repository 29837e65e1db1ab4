#include "disk/sim_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace fs3::disk {
namespace {

constexpr const char* kWhere = "sim_disk";

Status failure(int error, const std::string& name, const char* what) {
  return Status(static_cast<uint32_t>(error), kWhere, name + ": " + what);
}

}  // namespace

// ---- content of one file

void SimMedium::Content::apply(const Change& change, uint64_t from, uint64_t size) {
  FS3_CHECK(from + size <= change.length);
  uint64_t at = change.offset + from;
  uint64_t end = at + size;
  while (at < end) {
    uint64_t page = at / kAlignment;
    uint64_t inside = at % kAlignment;
    uint64_t count = std::min(kAlignment - inside, end - at);
    if (change.data.empty()) {
      auto found = pages.find(page);
      if (found != pages.end()) std::memset(found->second.data() + inside, 0, count);
      if (count == kAlignment) {
        pages.erase(page);
        if (page < allocated.size()) allocated[page] = false;
      }
    } else {
      auto [place, fresh] = pages.try_emplace(page);
      if (fresh) place->second.assign(kAlignment, '\0');
      std::memcpy(place->second.data() + inside, change.data.data() + (at - change.offset), count);
      allocate(page * kAlignment, kAlignment);
      length = std::max(length, at + count);
    }
    at += count;
  }
}

void SimMedium::Content::allocate(uint64_t offset, uint64_t size) {
  uint64_t end = (offset + size + kAlignment - 1) / kAlignment;
  if (allocated.size() < end) allocated.resize(end);
  for (uint64_t page = offset / kAlignment; page < end; ++page) allocated[page] = true;
}

uint64_t SimMedium::Content::allocated_pages() const {
  return static_cast<uint64_t>(std::count(allocated.begin(), allocated.end(), true));
}

// ---- medium

SimMedium::SimMedium(uint64_t seed, uint64_t capacity_bytes)
    : random_(seed), capacity_bytes_(capacity_bytes) {}

void SimMedium::power_off() {
  std::lock_guard lock(mutex_);
  on_ = false;
}

void SimMedium::power_off_after(uint64_t calls) {
  std::lock_guard lock(mutex_);
  calls_left_ = calls;
}

bool SimMedium::is_on() const {
  std::lock_guard lock(mutex_);
  return on_;
}

Status SimMedium::touch(const std::string& what) {
  std::lock_guard lock(mutex_);
  return check_power(what);
}

Status SimMedium::touch(SimFault::On on, const std::string& what) {
  std::lock_guard lock(mutex_);
  return check_fault(on, what);
}

Status SimMedium::check_power(const std::string& file) {
  if (on_ && calls_left_ != UINT64_MAX && calls_left_-- == 0) on_ = false;
  return on_ ? Status() : failure(EIO, file, "the power is off");
}

// Sector by sector: each unsynced change got there or not. Changes of length and allocation without
// a sync are lost, so a sector past the durable end has nowhere to be.
void SimMedium::settle(Image& image) {
  Content after = image.durable;
  for (const Change& change : image.unsynced) {
    bool whole = random_() % 4 == 0;
    for (uint64_t at = 0; at < change.length; at += kSector) {
      uint64_t size = std::min(kSector, change.length - at);
      bool stays = whole || random_() % 2 == 0;
      if (stays && change.offset + at + size <= image.durable.length) after.apply(change, at, size);
    }
  }
  after.length = image.durable.length;
  image.now = after;
  image.durable = std::move(after);
  image.unsynced.clear();
}

void SimMedium::power_on() {
  std::lock_guard lock(mutex_);
  FS3_CHECK(!on_);
  std::erase_if(files_, [](const auto& entry) { return !entry.second.linked; });
  for (auto& [name, image] : files_) settle(image);
  on_ = true;
  calls_left_ = UINT64_MAX;
}

void SimMedium::inject(SimFault fault) {
  std::lock_guard lock(mutex_);
  faults_.push_back(std::move(fault));
}

void SimMedium::clear_faults() {
  std::lock_guard lock(mutex_);
  faults_.clear();
}

uint64_t SimMedium::faults_hit() const {
  std::lock_guard lock(mutex_);
  uint64_t all = 0;
  for (const auto& [on, count] : faults_hit_) all += count;
  return all;
}

uint64_t SimMedium::faults_hit(SimFault::On on) const {
  std::lock_guard lock(mutex_);
  auto found = faults_hit_.find(on);
  return found == faults_hit_.end() ? 0 : found->second;
}

void SimMedium::set_capacity(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_bytes_ = bytes;
}

void SimMedium::corrupt(const std::string& file, uint64_t offset, uint64_t length) {
  std::lock_guard lock(mutex_);
  Image& image = files_.at(file);
  for (Content* content : {&image.now, &image.durable}) {
    for (uint64_t at = offset; at < offset + length; ++at) {
      auto [place, fresh] = content->pages.try_emplace(at / kAlignment);
      if (fresh) place->second.assign(kAlignment, '\0');
      place->second[at % kAlignment] ^= 1;
    }
  }
}

std::string SimMedium::peek(const std::string& file, uint64_t offset, uint64_t length) const {
  std::lock_guard lock(mutex_);
  std::string bytes(length, '\0');
  const auto& pages = files_.at(file).now.pages;
  for (uint64_t at = 0; at < length;) {
    uint64_t inside = (offset + at) % kAlignment;
    uint64_t count = std::min(kAlignment - inside, length - at);
    auto page = pages.find((offset + at) / kAlignment);
    if (page != pages.end()) std::memcpy(bytes.data() + at, page->second.data() + inside, count);
    at += count;
  }
  return bytes;
}

void SimMedium::lie_about_sync() {
  std::lock_guard lock(mutex_);
  lies_ = true;
}

void SimMedium::copy_durable(const SimMedium& other) {
  std::scoped_lock lock(mutex_, other.mutex_);
  files_.clear();
  for (const auto& [name, image] : other.files_) {
    if (image.linked) files_[name] = Image{image.durable, image.durable, {}, true};
  }
  small_ = other.small_;
}

uint64_t SimMedium::allocated_bytes() const {
  std::lock_guard lock(mutex_);
  return used_bytes();
}

uint64_t SimMedium::used_bytes() const {
  uint64_t pages = 0;
  for (const auto& [name, image] : files_) pages += image.now.allocated_pages();
  return pages * kAlignment;
}

Status SimMedium::check_fault(SimFault::On on, const std::string& file) {
  Status power = check_power(file);
  if (!power.ok()) return power;
  for (SimFault& fault : faults_) {
    if (fault.on != on || !file.starts_with(fault.file) || fault.count == 0) continue;
    if (fault.skip > 0) {
      --fault.skip;
      continue;
    }
    --fault.count;
    ++faults_hit_[on];
    return failure(static_cast<int>(fault.error), file, "injected failure");
  }
  return Status();
}

// ---- disk

class SimDisk final : public Disk {
 public:
  SimDisk(Reactor& reactor, SimMedium& medium, Executor* calls)
      : reactor_(reactor), medium_(medium), calls_(calls) {}

  Result<std::unique_ptr<File>> open(const std::string& name) override;
  Status sync_directory(const std::string& name) override;
  Status make_directory(const std::string&) override { return Status(); }
  Result<std::string> read_small(const std::string& name, size_t limit) override;
  Status write_small(const std::string& name, const std::string& bytes) override;
  Result<DiskSpace> space() const override;
  DiskStatistics statistics() const override;

  // Runs the function later, in another order than it came.
  void later(Function<void()> function);

 private:
  friend class SimFile;
  void run_one();

  Reactor& reactor_;
  SimMedium& medium_;
  Executor* const calls_;  // null: the reactor
  DiskStatistics counters_;
  std::vector<Function<void()>> waiting_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

class SimFile final : public File {
 public:
  SimFile(std::string name, SimDisk& disk) : name_(std::move(name)), disk_(disk) {}

  void read(uint64_t offset, Buffer buffer, Function<void(Result<size_t>)> done) override;
  void write(uint64_t offset, Buffer buffer, Function<void(Status)> done) override;
  void datasync(Function<void(Status)> done) override;
  Status datasync_now() override;
  void allocate(uint64_t offset, uint64_t length, Function<void(Status)> done) override;
  void punch(uint64_t offset, uint64_t length, Function<void(Status)> done) override;
  Result<uint64_t> size() const override;

 private:
  using Change = SimMedium::Change;
  SimMedium::Image& image() const { return disk_.medium_.files_.at(name_); }
  Result<size_t> read_now(uint64_t offset, const Buffer& buffer);
  Status change_now(SimFault::On on, Change change);
  Status allocate_now(uint64_t offset, uint64_t length);

  const std::string name_;
  SimDisk& disk_;
};

Result<size_t> SimFile::read_now(uint64_t offset, const Buffer& buffer) {
  std::lock_guard lock(disk_.medium_.mutex_);
  Status status = disk_.medium_.check_fault(SimFault::On::kRead, name_);
  if (!status.ok()) return status;
  const auto& content = image().now;
  if (offset >= content.length) return size_t{0};
  size_t count = std::min<uint64_t>(buffer.size(), content.length - offset);
  for (size_t at = 0; at < count; at += kAlignment) {
    size_t part = std::min<size_t>(kAlignment, count - at);
    auto found = content.pages.find((offset + at) / kAlignment);
    if (found == content.pages.end()) {
      std::memset(buffer.data() + at, 0, part);
    } else {
      std::memcpy(buffer.data() + at, found->second.data(), part);
    }
  }
  return count;
}

void SimFile::read(uint64_t offset, Buffer buffer, Function<void(Result<size_t>)> done) {
  FS3_CHECK(offset % kAlignment == 0 && buffer.size() % kAlignment == 0);
  ++disk_.counters_.reads;
  disk_.counters_.read_bytes += buffer.size();
  disk_.later([this, offset, buffer = std::move(buffer), done = std::move(done)]() mutable {
    done(read_now(offset, buffer));
  });
}

Status SimFile::change_now(SimFault::On on, Change change) {
  std::lock_guard lock(disk_.medium_.mutex_);
  Status status = disk_.medium_.check_fault(on, name_);
  if (!status.ok()) return status;
  image().now.apply(change);
  image().unsynced.push_back(std::move(change));
  return Status();
}

void SimFile::write(uint64_t offset, Buffer buffer, Function<void(Status)> done) {
  FS3_CHECK(offset % kAlignment == 0 && buffer.size() % kAlignment == 0 && !buffer.empty());
  FS3_CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment == 0);
  ++disk_.counters_.writes;
  disk_.counters_.written_bytes += buffer.size();
  disk_.later([this, offset, buffer = std::move(buffer), done = std::move(done)]() mutable {
    Change change{offset, buffer.size(),
                  std::string(reinterpret_cast<char*>(buffer.data()), buffer.size())};
    done(change_now(SimFault::On::kWrite, std::move(change)));
  });
}

void SimFile::datasync(Function<void(Status)> done) {
  disk_.later([this, done = std::move(done)]() mutable { done(datasync_now()); });
}

Status SimFile::datasync_now() {
  std::lock_guard lock(disk_.medium_.mutex_);
  Status status = disk_.medium_.check_fault(SimFault::On::kSync, name_);
  if (!status.ok()) return status;
  ++disk_.counters_.syncs;
  if (disk_.medium_.lies_) return Status();
  auto& file = image();
  for (const Change& change : file.unsynced) file.durable.apply(change);
  file.unsynced.clear();
  file.durable.allocated = file.now.allocated;
  file.durable.length = file.now.length;
  return Status();
}

Status SimFile::allocate_now(uint64_t offset, uint64_t length) {
  SimMedium& medium = disk_.medium_;
  std::lock_guard lock(medium.mutex_);
  Status status = medium.check_fault(SimFault::On::kAllocate, name_);
  if (!status.ok()) return status;
  auto& content = image().now;
  auto before = content.allocated;
  content.allocate(offset, length);
  if (medium.used_bytes() > medium.capacity_bytes_) {
    content.allocated = std::move(before);
    return failure(ENOSPC, name_, "allocate: the medium is full");
  }
  content.length = std::max(content.length, offset + length);
  return Status();
}

void SimFile::allocate(uint64_t offset, uint64_t length, Function<void(Status)> done) {
  disk_.later([this, offset, length, done = std::move(done)]() mutable {
    done(allocate_now(offset, length));
  });
}

void SimFile::punch(uint64_t offset, uint64_t length, Function<void(Status)> done) {
  disk_.later([this, offset, length, done = std::move(done)]() mutable {
    done(change_now(SimFault::On::kAllocate, Change{offset, length, {}}));
  });
}

Result<uint64_t> SimFile::size() const {
  std::lock_guard lock(disk_.medium_.mutex_);
  return image().now.length;
}

void SimDisk::later(Function<void()> function) {
  if (calls_ != nullptr) {
    auto call = [alive = std::weak_ptr<char>(alive_), function = std::move(function)]() mutable {
      if (!alive.expired()) function();
    };
    return calls_->submit(std::move(call));
  }
  waiting_.push_back(std::move(function));
  reactor_.post([this, alive = std::weak_ptr<char>(alive_)] {
    if (!alive.expired()) run_one();
  });
}

void SimDisk::run_one() {
  size_t pick;
  {
    std::lock_guard lock(medium_.mutex_);
    pick = medium_.random_() % waiting_.size();
  }
  std::swap(waiting_[pick], waiting_.back());
  Function<void()> function = std::move(waiting_.back());
  waiting_.pop_back();
  function();
}

Result<std::unique_ptr<File>> SimDisk::open(const std::string& name) {
  std::lock_guard lock(medium_.mutex_);
  if (!medium_.on_) return failure(EIO, name, "open: the power is off");
  medium_.files_.try_emplace(name);
  return std::unique_ptr<File>(new SimFile(name, *this));
}

Status SimDisk::sync_directory(const std::string& name) {
  std::lock_guard lock(medium_.mutex_);
  Status status = medium_.check_fault(SimFault::On::kSync, name);
  if (!status.ok()) return status;
  std::string prefix = name.empty() ? "" : name + "/";
  for (auto& [path, image] : medium_.files_) {
    bool inside = path.starts_with(prefix) && path.find('/', prefix.size()) == std::string::npos;
    if (inside) image.linked = true;
  }
  return Status();
}

Result<std::string> SimDisk::read_small(const std::string& name, size_t limit) {
  std::lock_guard lock(medium_.mutex_);
  Status status = medium_.check_fault(SimFault::On::kRead, name);
  if (!status.ok()) return status;
  auto found = medium_.small_.find(name);
  if (found == medium_.small_.end()) return failure(ENOENT, name, "no such file");
  if (found->second.size() > limit) return failure(EFBIG, name, "longer than expected");
  return found->second;
}

Status SimDisk::write_small(const std::string& name, const std::string& bytes) {
  std::lock_guard lock(medium_.mutex_);
  Status status = medium_.check_fault(SimFault::On::kWrite, name);
  if (!status.ok()) return status;
  medium_.small_[name] = bytes;
  return Status();
}

Result<DiskSpace> SimDisk::space() const {
  std::lock_guard lock(medium_.mutex_);
  uint64_t used = std::min(medium_.used_bytes(), medium_.capacity_bytes_);
  return DiskSpace{medium_.capacity_bytes_, medium_.capacity_bytes_ - used};
}

DiskStatistics SimDisk::statistics() const {
  DiskStatistics result = counters_;
  result.method = "simulated";
  result.errors = medium_.faults_hit();
  return result;
}

std::unique_ptr<Disk> open_sim_disk(Reactor& reactor, SimMedium& medium, Executor* calls) {
  return std::make_unique<SimDisk>(reactor, medium, calls);
}

}  // namespace fs3::disk
