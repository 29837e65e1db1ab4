// usrbio_fio: runs job files of fio(1) through rings, with the options of its 3FS engine; figures
// in fio's JSON. For machines without the sources of fio, whose headers an external engine needs.
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/crc32c.h"
#include "usrbio/fio/jobs.h"
#include "usrbio/hf3fs_usrbio.h"

namespace fs3::usrbio::fio {
namespace {

constexpr uint64_t kLayoutBytes = 1 << 20;
constexpr uint32_t kMagic = 0x66733376;

int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

[[noreturn]] void fail(const std::string& what, int error) {
  throw std::runtime_error(what + ": " + std::strerror(error));
}

// In front of each verified block; the checksum is that of all behind itself.
struct BlockHead {
  uint32_t checksum;
  uint32_t magic;
  uint64_t offset;
  uint64_t seed;
  uint64_t length;
};

uint32_t checksum_of(const uint8_t* block, size_t length) {
  return crc32c(0, block + sizeof(uint32_t), length - sizeof(uint32_t));
}

void fill_random(uint8_t* block, size_t length, uint64_t seed) {
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (size_t i = 0; i < length; i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(block + i, &state, std::min<size_t>(8, length - i));
  }
}

void seal(uint8_t* block, size_t length, uint64_t offset, uint64_t seed) {
  BlockHead head{0, kMagic, offset, seed, length};
  std::memcpy(block, &head, sizeof head);
  head.checksum = checksum_of(block, length);
  std::memcpy(block, &head.checksum, sizeof head.checksum);
}

void check_block(const uint8_t* block, size_t length, uint64_t offset) {
  BlockHead head;
  std::memcpy(&head, block, sizeof head);
  bool sound = head.magic == kMagic && head.offset == offset && head.length == length;
  if (sound && head.checksum == checksum_of(block, length)) return;
  std::ostringstream text;
  text << "verify: the block at " << offset << " is "
       << (sound ? "damaged" : "not what was written");
  throw std::runtime_error(text.str());
}

struct Side {
  uint64_t bytes = 0, ios = 0;
  std::vector<uint32_t> latencies_us;
  void add(const Side& other) {
    bytes += other.bytes;
    ios += other.ios;
    latencies_us.insert(latencies_us.end(), other.latencies_us.begin(), other.latencies_us.end());
  }
};

struct Figures {
  Side reads, writes;
  int64_t elapsed_ns = 0;  // the longest of its threads
};

// A ring of one direction and its memory.
class Ring {
 public:
  Ring(const std::string& mount, const Job& job, bool reads) {
    size_t bytes = static_cast<size_t>(job.depth) * job.block_bytes;
    int error = hf3fs_iovcreate(&iov, mount.c_str(), bytes, 0, -1);
    if (error != 0) fail("memory for " + std::to_string(job.depth) + " blocks", -error);
    error = hf3fs_iorcreate4(&ior, mount.c_str(), job.depth, reads, 0, 0, -1, 0);
    if (error == 0) return;
    hf3fs_iovdestroy(&iov);
    fail("a ring", -error);
  }
  ~Ring() {
    hf3fs_iordestroy(&ior);
    hf3fs_iovdestroy(&iov);
  }
  hf3fs_iov iov{};
  hf3fs_ior ior{};
};

// One file of one job, worked on by one thread.
class Worker {
 public:
  Worker(const Job& job, int index)
      : job_(job), random_(job.seed * 1000 + static_cast<uint64_t>(index)) {
    path_ =
        !job.filename.empty()
            ? (job.filename[0] == '/' || job.directory.empty() ? job.filename
                                                               : job.directory + "/" + job.filename)
            : job.directory + "/" + job.name + "." + std::to_string(index) + ".0";
    fd_ = open(path_.c_str(), (job.writes || job.create ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC,
               0644);
    if (fd_ < 0) fail(path_, errno);
    char mount[256];
    if (hf3fs_extract_mount_point(mount, sizeof mount, path_.c_str()) < 0)
      throw std::runtime_error(path_ + " lies in no mount of fs3");
    mount_ = mount;
    int error = hf3fs_reg_fd(fd_, 0);
    if (error > 0) fail("registering " + path_, error);
    lay_out();
    blocks_ = size_ / job.block_bytes;
    if (blocks_ == 0) throw std::runtime_error(path_ + " is shorter than a block");
  }
  ~Worker() {
    if (fd_ < 0) return;
    hf3fs_dereg_fd(fd_);
    close(fd_);
  }

  Figures run() {
    Figures figures;
    int64_t begin = now_ns();
    if (job_.reads && job_.writes) {
      // Each direction has its ring; both share the depth.
      Ring reads(mount_, job_, true), writes(mount_, job_, false);
      pass({&reads, &writes}, figures, false);
    } else {
      Ring ring(mount_, job_, job_.reads);
      pass({job_.reads ? &ring : nullptr, job_.reads ? nullptr : &ring}, figures,
           job_.verify && job_.reads);
    }
    if (job_.end_fsync && fsync(fd_) != 0) fail("fsync", errno);
    figures.elapsed_ns = now_ns() - begin - ramped_ns_;
    if (job_.verify && job_.writes) read_back();
    return figures;
  }

 private:
  struct Io {
    uint64_t offset;
    int64_t begin_ns;
    bool reads;
  };
  struct Rings {
    Ring* reads;
    Ring* writes;
  };

  // A job that reads needs a file of its size.
  void lay_out() {
    struct stat info{};
    if (fstat(fd_, &info) != 0) fail(path_, errno);
    size_ = job_.size_bytes != 0 ? job_.size_bytes : static_cast<uint64_t>(info.st_size);
    if (size_ == 0) throw std::runtime_error(path_ + ": the job needs a size");
    auto there = static_cast<uint64_t>(info.st_size);
    if (!job_.reads || job_.verify || there >= size_) return;
    std::vector<uint8_t> block(kLayoutBytes);
    for (uint64_t offset = there; offset < size_;) {
      size_t length = std::min<uint64_t>(block.size(), size_ - offset);
      fill_random(block.data(), length, offset + 1);
      ssize_t wrote = pwrite(fd_, block.data(), length, static_cast<off_t>(offset));
      if (wrote <= 0) fail("laying out " + path_, errno);
      offset += static_cast<uint64_t>(wrote);
    }
    if (fsync(fd_) != 0) fail("fsync", errno);
  }

  uint64_t next_block() {
    if (!job_.random) return cursor_++ % blocks_;
    if (!job_.random_map || job_.time_based) return random_() % blocks_;
    if (order_.empty()) {
      order_.resize(blocks_);
      std::iota(order_.begin(), order_.end(), 0);
      std::shuffle(order_.begin(), order_.end(), random_);
    }
    return order_[cursor_++ % blocks_];
  }

  void start(const Rings& rings, Io* io, size_t place) {
    io->reads =
        rings.writes == nullptr || (rings.reads != nullptr && random_() % 100 < job_.percent_reads);
    io->offset = next_block() * job_.block_bytes;
    Ring& ring = io->reads ? *rings.reads : *rings.writes;
    uint8_t* at = ring.iov.base + place * job_.block_bytes;
    if (!io->reads && job_.verify) {
      fill_random(at, job_.block_bytes, io->offset + job_.seed);
      seal(at, job_.block_bytes, io->offset, job_.seed);
    } else if (!io->reads) {
      fill_random(at, std::min<size_t>(job_.block_bytes, 64), random_());
    }
    io->begin_ns = now_ns();
    int slot = hf3fs_prep_io(&ring.ior, &ring.iov, io->reads, at, fd_, io->offset, job_.block_bytes,
                             reinterpret_cast<const void*>(place));
    if (slot < 0) fail("hf3fs_prep_io", -slot);
  }

  // Keeps `depth` I/Os under way until all is transferred, or the time is over.
  void pass(const Rings& rings, Figures& figures, bool verify) {
    uint64_t total = (job_.io_bytes != 0 ? job_.io_bytes : size_) / job_.block_bytes;
    std::vector<Io> ios(static_cast<size_t>(job_.depth));
    std::vector<size_t> free(ios.size());
    std::iota(free.rbegin(), free.rend(), 0);
    std::vector<hf3fs_cqe> cqes(ios.size());
    int64_t begin = now_ns(), ramp = begin + static_cast<int64_t>(job_.ramp_s * 1e9);
    int64_t end =
        job_.runtime_s > 0 ? ramp + static_cast<int64_t>(job_.runtime_s * 1e9) : INT64_MAX;
    bool ramping = job_.ramp_s > 0;
    uint64_t started = 0, unsynced = 0;
    while (true) {
      int64_t now = now_ns();
      if (ramping && now >= ramp) {
        figures = {};
        ramping = false;
        ramped_ns_ = now - begin;
      }
      bool more = now < end && (job_.time_based || started < total);
      size_t wanted = job_.batch > 0 ? static_cast<size_t>(job_.batch) : 1;
      if (more && free.size() >= std::min(wanted, ios.size())) {
        while (!free.empty() && (job_.time_based || started < total)) {
          start(rings, &ios[free.back()], free.back());
          free.pop_back();
          ++started;
        }
        for (Ring* ring : {rings.reads, rings.writes}) {
          if (ring != nullptr) submit(*ring);
        }
      }
      size_t under_way = ios.size() - free.size();
      if (under_way == 0 && !more) return;
      for (Ring* ring : {rings.reads, rings.writes}) {
        if (ring == nullptr) continue;
        bool only = rings.reads == nullptr || rings.writes == nullptr;
        int got = take(*ring, cqes, under_way, only);
        for (int i = 0; i < got; ++i) {
          const hf3fs_cqe& cqe = cqes[static_cast<size_t>(i)];
          auto place = reinterpret_cast<size_t>(cqe.userdata);
          unsynced += finish(ios[place], *ring, place, cqe, figures, verify);
          free.push_back(place);
        }
      }
      if (job_.fsync_every > 0 && unsynced >= job_.fsync_every) {
        if (fdatasync(fd_) != 0) fail("fdatasync", errno);
        unsynced = 0;
      }
    }
  }

  void submit(Ring& ring) {
    int error = hf3fs_submit_ios(&ring.ior);
    if (error != 0) fail("hf3fs_submit_ios", -error);
  }

  // `only`: of all that is under way; a mixed job looks at each of its rings by turns.
  int take(Ring& ring, std::vector<hf3fs_cqe>& cqes, size_t under_way, bool only) {
    int least = std::min(std::max(job_.batch_complete_min, 1), static_cast<int>(under_way));
    timespec soon{};
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 50'000;
    soon.tv_sec += soon.tv_nsec / 1'000'000'000;
    soon.tv_nsec %= 1'000'000'000;
    int got = hf3fs_wait_for_ios(&ring.ior, cqes.data(), static_cast<int>(cqes.size()),
                                 only ? least : 1, only ? nullptr : &soon);
    if (got < 0) fail("hf3fs_wait_for_ios", -got);
    return got;
  }

  // 1 for a write.
  uint64_t finish(const Io& io, const Ring& ring, size_t place, const hf3fs_cqe& cqe,
                  Figures& figures, bool verify) {
    if (cqe.result < 0)
      fail(std::string(io.reads ? "read" : "write") + " at " + std::to_string(io.offset),
           static_cast<int>(-cqe.result));
    if (static_cast<uint64_t>(cqe.result) != job_.block_bytes)
      throw std::runtime_error("short at " + std::to_string(io.offset));
    if (verify) check_block(ring.iov.base + place * job_.block_bytes, job_.block_bytes, io.offset);
    Side& side = io.reads ? figures.reads : figures.writes;
    side.bytes += job_.block_bytes;
    ++side.ios;
    side.latencies_us.push_back(
        static_cast<uint32_t>(std::min<int64_t>((now_ns() - io.begin_ns) / 1000, UINT32_MAX)));
    return io.reads ? 0 : 1;
  }

  // Every block of the file that was written.
  void read_back() {
    Job reading = job_;
    reading.reads = true;
    reading.writes = reading.random = false;
    Worker again(reading, path_, fd_, size_);
    Figures ignored;
    Ring ring(mount_, reading, true);
    again.mount_ = mount_;
    again.pass({&ring, nullptr}, ignored, true);
  }

  Worker(const Job& job, std::string path, int fd, uint64_t size)
      : job_(job),
        random_(job.seed),
        path_(std::move(path)),
        fd_(fcntl(fd, F_DUPFD_CLOEXEC, 3)),
        size_(size),
        blocks_(size / job.block_bytes) {
    int error = hf3fs_reg_fd(fd_, 0);
    if (error > 0) fail("registering " + path_, error);
  }

  const Job job_;
  std::mt19937_64 random_;
  std::string path_;
  std::string mount_;
  int fd_ = -1;
  uint64_t size_ = 0;
  uint64_t blocks_ = 0;
  uint64_t cursor_ = 0;
  std::vector<uint64_t> order_;
  int64_t ramped_ns_ = 0;
};

Figures run(const Job& job) {
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < job.jobs; ++i) workers.push_back(std::make_unique<Worker>(job, i));
  Figures all;
  std::string error;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (auto& worker : workers) {
    threads.emplace_back([&] {
      try {
        Figures one = worker->run();
        std::lock_guard lock(mutex);
        all.reads.add(one.reads);
        all.writes.add(one.writes);
        all.elapsed_ns = std::max(all.elapsed_ns, one.elapsed_ns);
      } catch (const std::exception& failed) {
        std::lock_guard lock(mutex);
        if (error.empty()) error = failed.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (!error.empty()) throw std::runtime_error("job " + job.name + ": " + error);
  return all;
}

uint64_t percentile_ns(const std::vector<uint32_t>& sorted, double percent) {
  if (sorted.empty()) return 0;
  auto at = static_cast<size_t>(percent / 100 * static_cast<double>(sorted.size() - 1) + 0.5);
  return 1000ull * sorted[std::min(at, sorted.size() - 1)];
}

// As fio has them.
std::string json_of(const Side& side, int64_t elapsed_ns, const std::vector<double>& percentiles) {
  std::vector<uint32_t> sorted = side.latencies_us;
  std::sort(sorted.begin(), sorted.end());
  double seconds = std::max(1e-9, static_cast<double>(elapsed_ns) / 1e9);
  double mean =
      sorted.empty()
          ? 0
          : 1000.0 *
                static_cast<double>(std::accumulate(sorted.begin(), sorted.end(), uint64_t{0})) /
                static_cast<double>(sorted.size());
  std::ostringstream out;
  out << "{\"io_bytes\": " << side.bytes
      << ", \"bw_bytes\": " << static_cast<uint64_t>(static_cast<double>(side.bytes) / seconds)
      << ", \"bw\": " << static_cast<uint64_t>(static_cast<double>(side.bytes) / 1024 / seconds)
      << ", \"iops\": " << static_cast<double>(side.ios) / seconds
      << ", \"runtime\": " << (side.ios == 0 ? 0 : elapsed_ns / 1'000'000)
      << ", \"total_ios\": " << side.ios << ", \"clat_ns\": {\"mean\": " << mean
      << ", \"percentile\": {";
  for (size_t i = 0; i < percentiles.size(); ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "%f", percentiles[i]);
    out << (i == 0 ? "" : ", ") << '"' << name << "\": " << percentile_ns(sorted, percentiles[i]);
  }
  out << "}}}";
  return out.str();
}

void print(std::ostream& out, const Settings& settings, const std::vector<Figures>& all) {
  if (settings.json) out << "{\"fio version\": \"usrbio_fio\", \"jobs\": [";
  for (size_t i = 0; i < all.size(); ++i) {
    const Job& job = settings.jobs[i];
    const Figures& one = all[i];
    if (settings.json) {
      out << (i == 0 ? "" : ", ") << "{\"jobname\": \"" << job.name
          << "\", \"error\": 0, \"job_runtime\": " << job.jobs * (one.elapsed_ns / 1'000'000)
          << ", \"read\": " << json_of(one.reads, one.elapsed_ns, settings.percentiles)
          << ", \"write\": " << json_of(one.writes, one.elapsed_ns, settings.percentiles) << "}";
      continue;
    }
    for (const auto& [side, name] :
         {std::pair{&one.reads, "read"}, std::pair{&one.writes, "write"}}) {
      if (side->ios == 0) continue;
      std::vector<uint32_t> sorted = side->latencies_us;
      std::sort(sorted.begin(), sorted.end());
      double seconds = static_cast<double>(one.elapsed_ns) / 1e9;
      char line[256];
      std::snprintf(
          line, sizeof line,
          "%s: %s: %.1f MiB/s, %.0f I/Os per s, %.2f s; us: p50 %lu, p99 %lu, p99.9 %lu\n",
          job.name.c_str(), name, static_cast<double>(side->bytes) / seconds / (1 << 20),
          static_cast<double>(side->ios) / seconds, seconds, percentile_ns(sorted, 50) / 1000,
          percentile_ns(sorted, 99) / 1000, percentile_ns(sorted, 99.9) / 1000);
      out << line;
    }
  }
  if (settings.json) out << "]}\n";
}

// Jobs run together, as in fio, up to one with stonewall.
std::vector<Figures> run_all(const std::vector<Job>& jobs) {
  std::vector<Figures> all(jobs.size());
  std::string error;
  std::mutex mutex;
  for (size_t begin = 0; begin < jobs.size();) {
    size_t end = begin + 1;
    while (end < jobs.size() && !jobs[end].stonewall) ++end;
    std::vector<std::thread> threads;
    for (size_t i = begin; i < end; ++i) {
      threads.emplace_back([&, i] {
        try {
          all[i] = run(jobs[i]);
        } catch (const std::exception& failed) {
          std::lock_guard lock(mutex);
          if (error.empty()) error = failed.what();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    if (!error.empty()) throw std::runtime_error(error);
    begin = end;
  }
  return all;
}

int main_with(int count, char** arguments) {
  try {
    Settings settings = parse({arguments + 1, arguments + count});
    auto figures = run_all(settings.jobs);
    if (settings.output.empty()) {
      std::ostringstream out;
      print(out, settings, figures);
      std::fputs(out.str().c_str(), stdout);
    } else {
      std::ofstream out(settings.output);
      print(out, settings, figures);
      if (!out.flush()) fail(settings.output, errno);
    }
    return 0;
  } catch (const std::invalid_argument& wrong) {
    std::fprintf(stderr, "usrbio_fio: %s\n", wrong.what());
    return 2;
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "usrbio_fio: %s\n", failed.what());
    return 1;
  }
}

}  // namespace
}  // namespace fs3::usrbio::fio

int main(int count, char** arguments) { return fs3::usrbio::fio::main_with(count, arguments); }
