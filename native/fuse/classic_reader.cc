#include "fuse/classic_reader.h"

#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/check.h"
#include "fuse/decode.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

// A message is read so that the data of a WRITE begins on a page: disks and registered memory like
// that, and nothing has to be moved.
constexpr size_t kWriteHead = sizeof(fuse_in_header) + sizeof(fuse_write_in);
constexpr size_t kReadAt = kBufferAlignment - kWriteHead;
static_assert(kReadAt % 8 == 0, "the headers are read in place");
constexpr size_t kReadSize = kWriteHead + kMaxTransfer;
constexpr int kReadsPerEvent = 8;       // then other descriptors of the reactor get their turn
constexpr size_t kInlinePayload = 640;  // two names of 255 bytes, and most link targets
// Up to here a copy is cheaper than pinning the whole read buffer for as long as the data is kept.
constexpr size_t kCopiedPayload = 64u << 10;

class ClassicRequest final : public Request {
 public:
  // `message` may be reused after the constructor, unless `owner` (the buffer it lies in) is kept.
  ClassicRequest(std::shared_ptr<Device> device, Session& session, const Decoded& decoded,
                 const Buffer& owner)
      : device_(std::move(device)), under_way_(session.under_way()) {
    under_way_.fetch_add(1, std::memory_order_relaxed);
    header_ = decoded.header;
    started_ns_ = now_ns();
    statistics_ = &session.statistics();
    FS3_CHECK(decoded.operation.size() <= arguments_.size());
    std::memcpy(arguments_.data(), decoded.operation.data(), decoded.operation.size());
    operation_ = Bytes(arguments_.data(), decoded.operation.size());
    size_t size = decoded.payload.size();
    if (size <= inline_.size()) {
      std::memcpy(inline_.data(), decoded.payload.data(), size);
      payload_ = Bytes(inline_.data(), size);
      return;
    }
    if (size <= kCopiedPayload) {
      kept_ = Buffer::copy_of(decoded.payload.data(), size);
    } else {
      kept_ = owner.slice(static_cast<size_t>(decoded.payload.data() - owner.data()), size);
      keeps_owner_ = true;
    }
    payload_ = Bytes(kept_.data(), size);
  }

  ~ClassicRequest() override { under_way_.fetch_sub(1, std::memory_order_release); }

  bool keeps_owner() const { return keeps_owner_; }

  Buffer payload_buffer(size_t length) override {
    FS3_CHECK(length <= payload_.size());
    if (kept_.empty()) return Buffer::copy_of(payload_.data(), length);
    return kept_.slice(0, length);
  }

  std::byte* reply_space(size_t length) override {
    FS3_CHECK(length <= kMaxTransfer);
    space_ = Buffer::allocate(length == 0 ? 1 : length);
    return space_.data();
  }

  void finish(int error, const void* data, size_t length) override {
    fuse_out_header out{};
    out.len = static_cast<uint32_t>(sizeof out + length);
    out.error = -error;
    out.unique = header_.unique;
    iovec parts[2] = {{&out, sizeof out}, {const_cast<void*>(data), length}};
    ssize_t written = writev(device_->fd(), parts, length == 0 ? 1 : 2);
    // ENOENT: the request was abandoned (its process died). ENODEV and friends: unmounted.
    if (written < 0 && (errno == EINVAL || errno == EFAULT)) {
      std::fprintf(
          stderr, "fs3 mount: the kernel refused the reply to %s (error %d, %zu bytes): %s\n",
          std::string(operation_name(opcode())).c_str(), error, length, std::strerror(errno));
    }
    statistics_->record(opcode(), now_ns() - started_ns_, error != 0);
    delete this;
  }

  void finish_without_reply() override {
    statistics_->record(opcode(), now_ns() - started_ns_, false);
    delete this;
  }

 private:
  std::shared_ptr<Device> device_;
  std::atomic<int64_t>& under_way_;
  alignas(8) std::array<std::byte, 128> arguments_;
  alignas(8) std::array<std::byte, kInlinePayload> inline_;
  Buffer kept_;
  Buffer space_;
  bool keeps_owner_ = false;
};

}  // namespace

ClassicReader::ClassicReader(Session& session, Reactor& reactor, std::shared_ptr<Device> device)
    : session_(session), reactor_(reactor), device_(std::move(device)) {}

Status ClassicReader::start() {
  buffer_ = Buffer::allocate(kReadAt + kReadSize);
  // Exclusive: one request wakes one reactor, though all of them wait for it.
  Status status = reactor_.add_fd(device_->fd(), EPOLLIN | EPOLLEXCLUSIVE, this);
  started_ = status.ok();
  return status;
}

void ClassicReader::stop() {
  if (!started_) return;
  started_ = false;
  reactor_.remove_fd(device_->fd());
}

void ClassicReader::on_events(uint32_t) {
  for (int i = 0; i < kReadsPerEvent && started_; ++i) {
    if (!read_one()) return;
  }
}

bool ClassicReader::read_one() {
  ssize_t got = read(device_->fd(), buffer_.data() + kReadAt, kReadSize);
  if (got >= 0) {
    accept(static_cast<size_t>(got));
    return true;
  }
  // ENOENT: the request was interrupted before it was read.
  if (errno == EINTR || errno == ENOENT) return true;
  if (errno == EAGAIN) return false;
  if (errno != ENODEV && errno != ECONNABORTED) {
    std::fprintf(stderr, "fs3 mount: read of /dev/fuse failed, the mount ends: %s\n",
                 std::strerror(errno));
  }
  stop();
  session_.connection_closed();
  return false;
}

void ClassicReader::accept(size_t length) {
  Bytes message(buffer_.data() + kReadAt, length);
  auto decoded = decode_request(message);
  if (!decoded.ok()) {
    std::fprintf(stderr, "fs3 mount: %s\n", decoded.status().to_string().c_str());
    if (length < sizeof(fuse_in_header)) return;
    Decoded malformed;
    std::memcpy(&malformed.header, message.data(), sizeof malformed.header);
    auto* request = new ClassicRequest(device_, session_, malformed, buffer_);
    reply_error(RequestPtr(request), EIO);
    return;
  }
  auto* request = new ClassicRequest(device_, session_, *decoded, buffer_);
  bool taken = request->keeps_owner();
  session_.dispatch(RequestPtr(request), decoded->known);
  if (taken) buffer_ = Buffer::allocate(kReadAt + kReadSize);
}

}  // namespace fs3::fuse
