// io_uring behind IoQueue. The ring's descriptor is in the reactor's epoll: it is readable while
// completions wait. COOP_TASKRUN: completions need no interrupt of the reactor while it works.
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <unordered_set>

#include "base/check.h"
#include "disk/io_queue.h"

namespace fs3::disk {
namespace {

// Operations the kernel holds at a time; later ones wait in order.
constexpr unsigned kDepth = 256;
constexpr uint64_t kBytesPerCall = 1u << 30;

class UringQueue final : public IoQueue, Reactor::FdHandler {
 public:
  explicit UringQueue(Reactor& reactor) : reactor_(reactor) {}
  ~UringQueue() override;

  Status init();
  void submit(std::unique_ptr<IoRequest> request) override;
  const char* name() const override { return "io_uring"; }

 private:
  void on_events(uint32_t) override;
  void schedule_flush();
  void flush();
  void prepare(io_uring_sqe* sqe, IoRequest* request);
  void reap();

  Reactor& reactor_;
  io_uring ring_{};
  bool open_ = false;
  bool flush_scheduled_ = false;
  size_t in_kernel_ = 0;
  std::deque<IoRequest*> waiting_;              // not yet in the ring
  std::unordered_set<IoRequest*> outstanding_;  // owned: waiting_ and those in the ring
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

Status UringQueue::init() {
  io_uring_params params{};
  params.flags = IORING_SETUP_COOP_TASKRUN;
  int result = io_uring_queue_init_params(kDepth, &ring_, &params);
  if (result == -EINVAL) {  // kernels before 5.19
    params = {};
    result = io_uring_queue_init_params(kDepth, &ring_, &params);
  }
  if (result < 0) {
    return Status(static_cast<uint32_t>(-result), "disk/io_uring",
                  std::string("io_uring_setup: ") + std::strerror(-result));
  }
  open_ = true;
  return reactor_.add_fd(ring_.ring_fd, EPOLLIN, this);
}

UringQueue::~UringQueue() {
  if (!open_) return;
  // Memory given to the kernel must stay until it is done with it.
  while (in_kernel_ > 0) {
    io_uring_cqe* cqe = nullptr;
    if (io_uring_submit_and_wait(&ring_, 1) < 0 && errno != EINTR) break;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      io_uring_cqe_seen(&ring_, cqe);
      --in_kernel_;
    }
  }
  reactor_.remove_fd(ring_.ring_fd);
  io_uring_queue_exit(&ring_);
  for (IoRequest* request : outstanding_) delete request;
}

void UringQueue::submit(std::unique_ptr<IoRequest> request) {
  outstanding_.insert(request.get());
  waiting_.push_back(request.release());
  schedule_flush();
}

void UringQueue::schedule_flush() {
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  auto run = [this, alive = std::weak_ptr<char>(alive_)] {
    if (alive.expired()) return;
    flush_scheduled_ = false;
    flush();
  };
  if (reactor_.on_thread()) {
    reactor_.defer(std::move(run));
  } else {
    reactor_.post(std::move(run));
  }
}

void UringQueue::prepare(io_uring_sqe* sqe, IoRequest* request) {
  auto* bytes = request->buffer.data() + request->transferred;
  uint64_t left = request->length - request->transferred;
  auto size = static_cast<unsigned>(std::min(left, kBytesPerCall));
  uint64_t at = request->offset + request->transferred;
  switch (request->kind) {
    case IoRequest::Kind::kRead:
      io_uring_prep_read(sqe, request->fd, bytes, size, at);
      break;
    case IoRequest::Kind::kWrite:
      io_uring_prep_write(sqe, request->fd, bytes, size, at);
      break;
    case IoRequest::Kind::kDatasync:
      io_uring_prep_fsync(sqe, request->fd, IORING_FSYNC_DATASYNC);
      break;
    case IoRequest::Kind::kAllocate:
      io_uring_prep_fallocate(sqe, request->fd, 0, static_cast<off_t>(request->offset),
                              static_cast<off_t>(request->length));
      break;
    case IoRequest::Kind::kPunch:
      io_uring_prep_fallocate(sqe, request->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(request->offset),
                              static_cast<off_t>(request->length));
      break;
  }
  io_uring_sqe_set_data(sqe, request);
}

void UringQueue::flush() {
  while (!waiting_.empty() && in_kernel_ < kDepth) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) break;  // the last submit left entries behind; it is repeated below
    prepare(sqe, waiting_.front());
    waiting_.pop_front();
    ++in_kernel_;
  }
  int result = io_uring_submit(&ring_);
  // EAGAIN and EBUSY: the kernel is short of memory or completions wait; what is in the ring stays
  // there for the next try.
  FS3_CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
  if (result < 0 || io_uring_sq_ready(&ring_) > 0) {
    reactor_.post([this, alive = std::weak_ptr<char>(alive_)] {
      if (!alive.expired()) schedule_flush();
    });
  }
}

void UringQueue::on_events(uint32_t) { reap(); }

void UringQueue::reap() {
  std::weak_ptr<char> alive = alive_;
  io_uring_cqe* cqe = nullptr;
  while (!alive.expired() && io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto* request = static_cast<IoRequest*>(io_uring_cqe_get_data(cqe));
    int64_t outcome = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    --in_kernel_;
    int64_t result = 0;
    if (!request->advance(outcome, &result)) {
      waiting_.push_front(request);
      schedule_flush();
      continue;
    }
    outstanding_.erase(request);
    std::unique_ptr<IoRequest> over(request);
    if (!waiting_.empty()) schedule_flush();
    over->done(result);
  }
}

}  // namespace

Result<std::unique_ptr<IoQueue>> make_uring_queue(Reactor& reactor) {
  auto queue = std::make_unique<UringQueue>(reactor);
  Status status = queue->init();
  if (!status.ok()) return status;
  return std::unique_ptr<IoQueue>(std::move(queue));
}

}  // namespace fs3::disk
