#include "net/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/shared_memory.h"
#include "net/address.h"
#include "net/limits.h"

namespace fs3::net {
namespace {

constexpr const char* kWhere = "net/connection";
// Read per round and connection, so that one busy peer does not starve the others.
constexpr size_t kReadPerRound = 4 << 20;
constexpr size_t kPiecesPerSend = 256;
constexpr size_t kPiecesPerReceive = 64;
// Where the bytes of unwanted payloads go.
constexpr size_t kDiscardSize = 64 << 10;
thread_local std::byte discarded[kDiscardSize];

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Calls f(span) for the pieces of a frame in order.
template <typename F>
void for_each_piece(const OutFrame& frame, F&& f) {
  f(std::span<const std::byte>(frame.header));
  f(bytes_of(frame.head));
  for (auto piece : frame.payload) f(piece);
}

}  // namespace

size_t OutFrame::size() const {
  size_t total = header.size() + head.size();
  for (auto piece : payload) total += piece.size();
  return total;
}

Connection::Connection(Reactor& reactor, int fd, Owner* owner, Traffic* traffic)
    : reactor_(reactor),
      fd_(fd),
      owner_(owner),
      traffic_(traffic),
      scratch_(std::make_unique<std::byte[]>(kScratchSize)) {}

Connection::~Connection() { close(); }

Status Connection::start() {
  interest_ = EPOLLIN;
  Status status = reactor_.add_fd(fd_, interest_, this);
  if (!status.ok()) {
    ::close(fd_);
    fd_ = -1;
  }
  return status;
}

void Connection::close() {
  owner_ = nullptr;
  if (fd_ < 0) return;
  reactor_.remove_fd(fd_);
  ::close(fd_);
  fd_ = -1;
  queue_.clear();
}

void Connection::close_after_flush() {
  closing_ = true;
  closing_since_ns_ = now_ns();
  if (is_open()) schedule_flush();
}

// Closing a socket with unread bytes would reset it, and the peer might lose our last frame: take
// what still comes until the peer has closed too.
void Connection::drain() {
  ssize_t received = recv(fd_, discarded, kDiscardSize, MSG_DONTWAIT);
  bool again = received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
  if (received > 0 || again) return;
  fail(Status(kConnectionLost, kWhere, "closed by this side"));
}

void Connection::fail(const Status& why) {
  Owner* owner = owner_;
  close();
  if (owner != nullptr) owner->connection_closed(why);
}

void Connection::on_events(uint32_t events) {
  auto self = shared_from_this();  // the owner may drop us from a callback
  if ((events & EPOLLOUT) != 0) {
    write_blocked_ = false;
    flush();
  }
  if (!is_open()) return;
  if (closing_) {
    drain();
  } else if (reading()) {
    read_some();
  } else if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    fail(Status(kConnectionLost, kWhere, "the peer closed the connection"));
  }
}

// ---- receiving -------------------------------------------------------------------------------

void Connection::read_some() {
  // After a pause the scratch space may be full of whole frames; it has room once they are parsed.
  parse_scratch();
  size_t total = 0;
  while (reading() && total < kReadPerRound) {
    size_t wanted = 0;
    ssize_t received = receive(&wanted);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (received < 0) {
      return fail(Status(kConnectionLost, kWhere, std::string("receive: ") + strerror(errno)));
    }
    if (received == 0) {
      return fail(Status(kConnectionLost, kWhere, "the peer closed the connection"));
    }
    absorb(static_cast<size_t>(received));
    total += static_cast<size_t>(received);
    if (static_cast<size_t>(received) < wanted) break;  // the socket is empty
  }
}

// One receive: what is missing of the current head or payload goes to its place, whatever follows
// into the scratch space.
ssize_t Connection::receive(size_t* wanted) {
  if (scratch_begin_ > 0) {
    std::memmove(scratch_.get(), scratch_.get() + scratch_begin_, scratch_end_ - scratch_begin_);
    scratch_end_ -= scratch_begin_;
    scratch_begin_ = 0;
  }
  iovec pieces[kPiecesPerReceive + 1];
  size_t count = 0;
  bool stage_complete = true;
  if (stage_ == Stage::kHead) {
    pieces[count++] = {head_.data() + head_filled_, head_.size() - head_filled_};
    // The payload's place is known too: a small request arrives in one receive.
  }
  if (stage_ != Stage::kHeader && payload_left_ > 0) {
    if (target_.empty()) {
      pieces[count++] = {discarded, std::min(payload_left_, kDiscardSize)};
      stage_complete = payload_left_ <= kDiscardSize;
    } else {
      size_t left = payload_left_;
      size_t offset = target_offset_;
      for (size_t i = target_index_; left > 0 && count < kPiecesPerReceive; ++i, offset = 0) {
        size_t size = std::min(left, target_[i].size() - offset);
        pieces[count++] = {target_[i].data() + offset, size};
        left -= size;
      }
      stage_complete = left == 0;
    }
  }
  if (stage_complete)
    pieces[count++] = {scratch_.get() + scratch_end_, kScratchSize - scratch_end_};
  for (size_t i = 0; i < count; ++i) *wanted += pieces[i].iov_len;
  ssize_t received = readv(fd_, pieces, static_cast<int>(count));
  // Memory of a program that has taken it away: its call fails, the connection must not.
  if (received < 0 && errno == EFAULT) {
    bool replaced = false;
    for (size_t i = 0; i < count; ++i) {
      replaced |= replace_lost_memory(pieces[i].iov_base, pieces[i].iov_len);
    }
    if (replaced) received = readv(fd_, pieces, static_cast<int>(count));
  }
  if (received > 0) {
    traffic_->bytes_in.fetch_add(static_cast<uint64_t>(received), std::memory_order_relaxed);
  }
  return received;
}

// Accounts for `received` bytes in the places that receive() named.
void Connection::absorb(size_t received) {
  frame_bytes_ += received;
  if (stage_ == Stage::kHead) {
    size_t part = std::min(received, head_.size() - head_filled_);
    head_filled_ += part;
    received -= part;
    if (head_filled_ == head_.size()) stage_ = Stage::kPayload;
  }
  if (stage_ == Stage::kPayload) {
    size_t part = std::min(received, payload_left_);
    advance_payload(part);
    received -= part;
    scratch_end_ += received;
    if (payload_left_ == 0) finish_frame();
  } else {
    scratch_end_ += received;
  }
  parse_scratch();
}

void Connection::parse_scratch() {
  while (reading() && step_from_scratch()) {
  }
  if (reading() && frame_bytes_ > 0 && frame_since_ns_ == 0) frame_since_ns_ = now_ns();
}

// Moves bytes from the scratch space to where they belong. False when more must be received first.
bool Connection::step_from_scratch() {
  const std::byte* bytes = scratch_.get() + scratch_begin_;
  size_t available = scratch_end_ - scratch_begin_;
  if (stage_ == Stage::kHeader) {
    if (available < wire::kHeaderSize) return false;
    scratch_begin_ += wire::kHeaderSize;
    take_header(bytes);
    return true;
  }
  if (available == 0) return false;
  if (stage_ == Stage::kHead) {
    size_t part = std::min(available, head_.size() - head_filled_);
    std::memcpy(head_.data() + head_filled_, bytes, part);
    head_filled_ += part;
    scratch_begin_ += part;
    if (head_filled_ == head_.size()) next_stage();
    return true;
  }
  auto room = payload_room();
  size_t part = std::min(available, room.size());
  std::memcpy(room.data(), bytes, part);
  scratch_begin_ += part;
  advance_payload(part);
  if (payload_left_ == 0) finish_frame();
  return true;
}

void Connection::take_header(const std::byte* bytes) {
  auto decoded = wire::decode(std::span<const std::byte, wire::kHeaderSize>(bytes, 64));
  if (!decoded.ok()) return fail(decoded.status());
  header_ = *decoded;
  target_.clear();
  Status status = owner_->frame_begins(header_, &target_);
  if (!is_open()) return;
  if (!status.ok()) return fail(status);
  size_t room = 0;
  for (auto piece : target_) room += piece.size();
  FS3_CHECK(target_.empty() || room >= header_.payload_len);
  head_.resize(header_.capability_len + header_.body_len);
  head_filled_ = 0;
  target_index_ = target_offset_ = 0;
  payload_left_ = header_.payload_len;
  payload_crc_ = 0;
  stage_ = Stage::kHead;
  if (head_.empty()) next_stage();
}

void Connection::next_stage() {
  stage_ = Stage::kPayload;
  if (payload_left_ == 0) finish_frame();
}

// Where the next payload byte goes. Not empty while payload is left.
std::span<std::byte> Connection::payload_room() {
  if (target_.empty()) return {discarded, std::min(payload_left_, kDiscardSize)};
  while (target_[target_index_].size() == target_offset_) {
    ++target_index_;
    target_offset_ = 0;
  }
  auto room = target_[target_index_].subspan(target_offset_);
  return room.first(std::min(room.size(), payload_left_));
}

// `size` payload bytes lie in their place: checks them in while they are in the cache.
void Connection::advance_payload(size_t size) {
  while (size > 0) {
    auto room = payload_room();
    size_t part = std::min(size, room.size());
    payload_crc_ = crc32c(payload_crc_, room.data(), part);
    target_offset_ += target_.empty() ? 0 : part;
    payload_left_ -= part;
    size -= part;
  }
}

void Connection::finish_frame() {
  Status status =
      wire::check_crc("body_crc", header_.body_crc, crc32c(0, head_.data(), head_.size()));
  if (!status.ok()) return fail(status);
  status = wire::check_crc("payload_crc", header_.payload_crc, payload_crc_);
  if (!status.ok() && !owner_->survives_damage(header_)) return fail(status);
  stage_ = Stage::kHeader;
  target_.clear();
  frame_since_ns_ = 0;
  frame_bytes_ = scratch_end_ - scratch_begin_;
  wire::Header header = header_;
  std::string head = std::exchange(head_, {});
  status.ok() ? owner_->frame_arrived(header, std::move(head)) : owner_->frame_damaged(header);
}

void Connection::discard_payload() { target_.clear(); }

const wire::Header* Connection::arriving() const {
  return stage_ == Stage::kHeader ? nullptr : &header_;
}

void Connection::pause_reading() {
  paused_ = true;
  frame_since_ns_ = 0;
  if (is_open()) update_interest();
}

void Connection::resume_reading() {
  if (!paused_) return;
  paused_ = false;
  if (!is_open()) return;
  update_interest();
  // Whole frames may wait in the scratch space, about which the socket says nothing.
  if (scratch_end_ > scratch_begin_) {
    reactor_.post([self = shared_from_this()] { self->parse_scratch(); });
  }
}

// ---- sending ---------------------------------------------------------------------------------

void Connection::send(OutFrame frame) {
  if (!is_open()) return;
  queue_.push_back(std::move(frame));
  schedule_flush();
}

void Connection::schedule_flush() {
  if (flush_scheduled_ || write_blocked_) return;
  flush_scheduled_ = true;
  reactor_.defer([self = shared_from_this()] {
    self->flush_scheduled_ = false;
    self->flush();
  });
}

void Connection::flush() {
  std::vector<iovec> pieces;
  while (is_open() && !queue_.empty()) {
    pieces.clear();
    size_t wanted = gather(&pieces);
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      return fail(Status(kConnectionLost, kWhere, std::string("send: ") + strerror(errno)));
    }
    if (sent > 0) {
      traffic_->bytes_out.fetch_add(static_cast<uint64_t>(sent), std::memory_order_relaxed);
      advance_queue(static_cast<size_t>(sent));
    }
    if (sent < static_cast<ssize_t>(wanted)) {
      write_blocked_ = true;
      write_blocked_since_ns_ = now_ns();
      break;
    }
  }
  if (!is_open()) return;
  if (queue_.empty() && closing_) shutdown(fd_, SHUT_WR);
  update_interest();
}

size_t Connection::gather(std::vector<iovec>* pieces) const {
  size_t total = 0;
  size_t skip = front_sent_;
  for (const OutFrame& frame : queue_) {
    for_each_piece(frame, [&](std::span<const std::byte> piece) {
      size_t skipped = std::min(skip, piece.size());
      skip -= skipped;
      piece = piece.subspan(skipped);
      if (piece.empty() || pieces->size() == kPiecesPerSend) return;
      pieces->push_back({const_cast<std::byte*>(piece.data()), piece.size()});
      total += piece.size();
    });
    if (pieces->size() == kPiecesPerSend) break;
  }
  return total;
}

void Connection::advance_queue(size_t sent) {
  front_sent_ += sent;
  while (is_open() && !queue_.empty() && front_sent_ >= queue_.front().size()) {
    front_sent_ -= queue_.front().size();
    uint64_t request_id = queue_.front().request_id;
    queue_.pop_front();
    owner_->frame_sent(request_id);
  }
}

void Connection::detach(uint64_t request_id) {
  auto found = std::find_if(queue_.begin(), queue_.end(),
                            [&](const OutFrame& f) { return f.request_id == request_id; });
  if (found == queue_.end()) return;
  if (found != queue_.begin() || front_sent_ == 0) {
    queue_.erase(found);
    return;
  }
  size_t size = 0;
  for (auto piece : found->payload) size += piece.size();
  Buffer copy = Buffer::allocate(size);
  size_t filled = 0;
  for (auto piece : found->payload) {
    std::memcpy(copy.data() + filled, piece.data(), piece.size());
    filled += piece.size();
  }
  found->payload = {copy.span()};
  found->keep = {std::move(copy)};
}

void Connection::update_interest() {
  uint32_t wanted = (paused_ && !closing_ ? 0u : EPOLLIN) | (write_blocked_ ? EPOLLOUT : 0u);
  if (wanted == interest_) return;
  interest_ = wanted;
  Status status = reactor_.modify_fd(fd_, wanted);
  FS3_CHECK(status.ok());  // fails only for a descriptor that is not registered
}

Status Connection::check_progress(int64_t now) const {
  if (write_blocked_ && now - write_blocked_since_ns_ > kStalledWriteTimeoutNs) {
    return Status(kTimedOut, kWhere, "the peer takes no bytes");
  }
  if (closing_ && now - closing_since_ns_ > kHelloTimeoutNs) {
    return Status(kTimedOut, kWhere, "the peer does not close");
  }
  if (frame_since_ns_ == 0 || paused_) return Status();
  int64_t elapsed = now - frame_since_ns_;
  auto due = static_cast<uint64_t>(elapsed / kSecond) * kFrameBytesPerSecondMin;
  if (elapsed > kFrameTimeoutNs && frame_bytes_ < due) {
    return Status(kTimedOut, kWhere, "a frame arrives more slowly than 64 KiB/s");
  }
  return Status();
}

}  // namespace fs3::net
