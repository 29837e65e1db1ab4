#include "fuse/uring_queues.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/check.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

constexpr int kPassesPerRound = 8;  // then other descriptors of the reactor get their turn
constexpr unsigned kSubmissionEntriesMax = 4096;
constexpr int kStopWaits = 100;
constexpr int64_t kStopWaitNs = 10'000'000;

Status ring_error(const char* what, int number) {
  return Status(static_cast<uint32_t>(number), "fuse/uring",
                std::string(what) + ": " + std::strerror(number));
}

}  // namespace

// Header and payload live in one anonymous mapping: untouched payloads cost no memory.
class UringQueues::Entry final : public Request {
 public:
  Entry() = default;
  Entry(Entry&&) = default;
  ~Entry() override {
    if (memory_ != nullptr) munmap(memory_, kMapped);
  }

  Status allocate(UringQueues* owner, uint16_t queue_id) {
    void* memory =
        mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return ring_error("mmap of an entry", errno);
    memory_ = static_cast<std::byte*>(memory);
    owner_ = owner;
    queue_id_ = queue_id;
    vectors_[0] = {memory_, sizeof(UringHeader)};
    vectors_[1] = {data(), kMaxTransfer};
    return Status();
  }

  // Takes over what the kernel has put into the buffers. False: it does not add up.
  bool accept(OperationStatistics* statistics) {
    const UringHeader& header = shared();
    std::memcpy(&header_, header.in_out, sizeof header_);
    size_t payload = header.ent.payload_sz;
    size_t fixed = operation_header_size(header_.opcode);
    known_ = fixed != kUnknownOperation;
    commit_id_ = header.ent.commit_id;
    started_ns_ = now_ns();
    statistics_ = statistics;
    if (payload > kMaxTransfer || (known_ && fixed > sizeof header.op_in)) return false;
    operation_ = Bytes(header.op_in, known_ ? fixed : 0);
    payload_ = Bytes(data(), payload);
    return true;
  }

  Buffer payload_buffer(size_t length) override {
    FS3_CHECK(length <= payload_.size());
    return Buffer::copy_of(payload_.data(), length);
  }

  std::byte* reply_space(size_t length) override {
    FS3_CHECK(length <= kMaxTransfer);
    return data();
  }

  void finish(int error, const void* bytes, size_t length) override {
    FS3_CHECK(length <= kMaxTransfer && (error == 0 || length == 0));
    statistics_->record(opcode(), now_ns() - started_ns_, error != 0);
    if (length > 0 && bytes != data()) std::memmove(data(), bytes, length);
    fuse_out_header out{};
    out.len = static_cast<uint32_t>(sizeof out + length);
    out.error = -error;
    out.unique = header_.unique;
    std::memcpy(shared().in_out, &out, sizeof out);
    shared().ent.payload_sz = static_cast<uint32_t>(length);
    if (owner_->reactor_.on_thread()) {
      owner_->commit(*this);
    } else {
      owner_->reactor_.post([this] { owner_->commit(*this); });
    }
  }

  // The kernel sends nothing without reply over io_uring; an entry must be committed to come back.
  void finish_without_reply() override { finish(0, nullptr, 0); }

  bool known() const { return known_; }
  uint16_t queue_id() const { return queue_id_; }
  uint64_t commit_id() const { return commit_id_; }
  const iovec* vectors() const { return vectors_; }

 private:
  static constexpr size_t kMapped = kPageBytes + kMaxTransfer;
  static_assert(sizeof(UringHeader) <= kPageBytes);
  UringHeader& shared() const { return *reinterpret_cast<UringHeader*>(memory_); }
  std::byte* data() const { return memory_ + kPageBytes; }

  UringQueues* owner_ = nullptr;
  std::byte* memory_ = nullptr;
  iovec vectors_[2]{};
  uint64_t commit_id_ = 0;
  uint16_t queue_id_ = 0;
  bool known_ = false;
};

UringQueues::UringQueues(Session& session, Reactor& reactor, std::shared_ptr<Device> device,
                         std::vector<uint16_t> queue_ids, uint32_t depth)
    : session_(session),
      reactor_(reactor),
      device_(std::move(device)),
      queue_ids_(std::move(queue_ids)),
      depth_(depth) {}

UringQueues::~UringQueues() {
  // Ends the kernel's claim on the entries before their memory goes.
  if (ring_made_) io_uring_queue_exit(&ring_);
  if (event_fd_ >= 0) close(event_fd_);
}

Status UringQueues::prepare() {
  size_t count = queue_ids_.size() * depth_;
  io_uring_params params{};
  // Completions are delivered when this thread asks for them, so a request never interrupts it.
  params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_CQSIZE;
  unsigned entries =
      std::min<unsigned>(std::bit_ceil(static_cast<unsigned>(count) + 1u), kSubmissionEntriesMax);
  params.cq_entries = std::bit_ceil(static_cast<unsigned>(count) + 1u) * 2;
  int failed = io_uring_queue_init_params(entries, &ring_, &params);
  if (failed < 0) return ring_error("io_uring_setup", -failed);
  ring_made_ = true;
  event_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) return ring_error("eventfd", errno);
  failed = io_uring_register_eventfd(&ring_, event_fd_);
  if (failed < 0) return ring_error("io_uring_register_eventfd", -failed);
  entries_ = std::vector<Entry>(count);
  size_t index = 0;
  for (uint16_t queue_id : queue_ids_) {
    for (uint32_t i = 0; i < depth_; ++i) {
      Status status = entries_[index++].allocate(this, queue_id);
      if (!status.ok()) return status;
    }
  }
  stay_with_callers();
  // Edge-triggered: each completion is an edge, so the counter never needs to be read.
  Status status = reactor_.add_fd(event_fd_, EPOLLIN | EPOLLET, this);
  on_reactor_ = status.ok();
  return status;
}

// A request waits in the queue of the CPU it was made on. Answering it on the same CPU is a plain
// context switch; waking an idle one costs an interrupt, tens of microseconds in a virtual machine.
void UringQueues::stay_with_callers() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (uint16_t queue_id : queue_ids_) {
    if (queue_id < CPU_SETSIZE) CPU_SET(queue_id, &cpus);
  }
  // Refused when a cpuset leaves none of them: then the scheduler decides, which is only slower.
  (void)pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
}

void UringQueues::register_entries() {
  for (Entry& entry : entries_) prepare_command(entry, kUringRegister);
  schedule_flush();
}

void UringQueues::stop() {
  if (!on_reactor_) return;
  on_reactor_ = false;
  reactor_.remove_fd(event_fd_);
  // The kernel may write into an entry as long as its command is pending.
  for (int wait = 0; pending_ > 0 && wait < kStopWaits; ++wait) {
    __kernel_timespec timeout{0, kStopWaitNs};
    io_uring_cqe* completion = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &completion, 1, &timeout, nullptr);
    while (io_uring_peek_cqe(&ring_, &completion) == 0) {
      --pending_;
      io_uring_cqe_seen(&ring_, completion);
    }
  }
}

void UringQueues::prepare_command(Entry& entry, uint32_t command) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    io_uring_submit(&ring_);
    sqe = io_uring_get_sqe(&ring_);
    FS3_CHECK(sqe != nullptr);
  }
  ++pending_;
  std::memset(sqe, 0, 128);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = device_->fd();
  sqe->cmd_op = command;
  sqe->addr = reinterpret_cast<uint64_t>(entry.vectors());
  sqe->len = 2;
  sqe->user_data = reinterpret_cast<uint64_t>(&entry);
  UringCommandRequest request{};
  request.qid = entry.queue_id();
  if (command == kUringCommitAndFetch) request.commit_id = entry.commit_id();
  std::memcpy(sqe->cmd, &request, sizeof request);
}

void UringQueues::commit(Entry& entry) {
  if (!on_reactor_) return;  // unmounted: nobody waits for this reply
  prepare_command(entry, kUringCommitAndFetch);
  if (!running_) schedule_flush();
}

void UringQueues::schedule_flush() {
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  reactor_.defer([this] {
    flush_scheduled_ = false;
    run();
  });
}

void UringQueues::on_events(uint32_t) { run(); }

void UringQueues::run() {
  if (!on_reactor_) return;
  running_ = true;
  bool more = true;
  for (int pass = 0; pass < kPassesPerRound && more; ++pass) {
    int submitted = io_uring_submit_and_get_events(&ring_);
    if (submitted < 0 && submitted != -EINTR && submitted != -EAGAIN && submitted != -EBUSY) {
      std::fprintf(stderr, "fs3 mount: io_uring_enter: %s\n", std::strerror(-submitted));
    }
    more = take_completions();
  }
  running_ = false;
  // The edge of what is still queued may be gone: come back by ourselves.
  if (more && on_reactor_) reactor_.post([this] { run(); });
}

bool UringQueues::take_completions() {
  bool any = false;
  io_uring_cqe* batch[64];
  while (on_reactor_) {
    unsigned count = io_uring_peek_batch_cqe(&ring_, batch, 64);
    if (count == 0) break;
    any = true;
    pending_ -= count;
    std::pair<Entry*, int> done[64];
    for (unsigned i = 0; i < count; ++i) {
      done[i] = {reinterpret_cast<Entry*>(batch[i]->user_data), batch[i]->res};
    }
    io_uring_cq_advance(&ring_, count);
    for (unsigned i = 0; i < count; ++i) completed(*done[i].first, done[i].second);
  }
  return any;
}

void UringQueues::completed(Entry& entry, int result) {
  if (result == 0) {
    if (entry.accept(&session_.statistics())) {
      bool known = entry.known();
      session_.dispatch(RequestPtr(&entry), known);
    } else {
      std::fprintf(stderr, "fs3 mount: malformed request in queue %u\n", entry.queue_id());
      reply_error(RequestPtr(&entry), EIO);
    }
    return;
  }
  // ENOTCONN, ECONNABORTED: unmounted; the classic reader reports the end. Otherwise the kernel
  // goes back to the classic way for a failed registration, and an entry is lost for a failed
  // commit.
  if (result != -ENOTCONN && result != -ECONNABORTED && result != -ECANCELED && result != -ENODEV) {
    std::fprintf(stderr, "fs3 mount: FUSE over io_uring, queue %u: %s\n", entry.queue_id(),
                 std::strerror(-result));
  }
}

}  // namespace fs3::fuse
