// Channel over a socket. The public object is a handle; the core lives as long as something on the
// reactor refers to it, so a channel may be dropped from any thread and from its own callbacks.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/shared_memory.h"
#include "net/address.h"
#include "net/connection.h"
#include "net/limits.h"
#include "net/peer.h"
#include "net/rpc.h"
#include "wire/error_detail.h"
#include "wire/frame.h"

namespace fs3::net {
namespace {

constexpr const char* kWhere = "net/channel";

size_t total_length(const std::vector<RegionSlice>& slices) {
  size_t total = 0;
  for (const RegionSlice& slice : slices) total += slice.length;
  return total;
}

// What of a call can be wrong before anything is sent.
Status check_spec(const CallSpec& spec) {
  auto bad = [](std::string_view detail) { return Status(kBadRequest, kWhere, detail); };
  if (!spec.capability.empty() && spec.capability.size() != 80) {
    return bad("capability: must have 0 or 80 bytes");
  }
  if (spec.body.size() > wire::kMaxBody) return bad("body: exceeds 4 MiB");
  if (total_length(spec.source) > wire::kMaxPayload) return bad("source: exceeds 4 MiB + 64 KiB");
  if (total_length(spec.sink) > wire::kMaxPayload) return bad("sink: exceeds 4 MiB + 64 KiB");
  return Status();
}

class Core final : public Connection::Owner,
                   public Reactor::FdHandler,
                   public std::enable_shared_from_this<Core> {
 public:
  Core(Reactor& reactor, Endpoint endpoint, Identity self)
      : reactor_(reactor), endpoint_(std::move(endpoint)), self_(std::move(self)) {}
  ~Core() override { abandon_attempt(); }

  void call(CallSpec spec, ReplyCallback on_reply);
  void shut_down();
  Reactor& reactor() { return reactor_; }
  bool healthy() const { return healthy_.load(std::memory_order_relaxed); }

 private:
  struct Call {
    CallSpec spec;
    ReplyCallback on_reply;
    int64_t deadline_ns;
    bool queued = false;  // its frame was handed to the connection
    bool sent = false;    // and has left completely: the source is no longer read
  };
  using Calls = std::unordered_map<uint64_t, Call>;

  Status frame_begins(const wire::Header& header,
                      std::vector<std::span<std::byte>>* target) override;
  void frame_arrived(const wire::Header& header, std::string head) override;
  bool survives_damage(const wire::Header& header) override;
  void frame_damaged(const wire::Header& header) override;
  void frame_sent(uint64_t request_id) override;
  void connection_closed(const Status& why) override;
  void on_events(uint32_t events) override;  // of the socket that is connecting

  void connect();
  void connected();
  void attempt_failed(const Status& why);
  void abandon_attempt();
  void hello_arrived(std::string_view body);
  void send(uint64_t id, Call* call);
  void send_hello();

  void finish(Calls::iterator found, Reply reply);
  void answer_later(ReplyCallback on_reply, Status status);
  void fail_all(const Status& why);
  void arm_deadline(int64_t deadline_ns);
  void sweep_deadlines();

  // Constant after construction.
  Reactor& reactor_;
  const Endpoint endpoint_;
  const Identity self_;

  std::atomic<bool> healthy_{true};
  Traffic traffic_;

  // The reactor's thread only.
  bool shut_down_ = false;
  Calls calls_;
  std::vector<uint64_t> waiting_;  // not handed to a connection yet, in order of arrival
  uint64_t next_id_ = 1;

  int connecting_fd_ = -1;
  std::shared_ptr<Connection> connection_;
  bool hello_seen_ = false;
  bool reconnect_planned_ = false;
  int64_t reconnect_delay_ns_ = 0;
  Reactor::TimerId attempt_timer_ = 0;

  Reactor::TimerId deadline_timer_ = 0;
  int64_t deadline_armed_ns_ = 0;  // 0: not armed
};

// ---- calls -----------------------------------------------------------------------------------

void Core::call(CallSpec spec, ReplyCallback on_reply) {
  if (shut_down_) {
    return answer_later(std::move(on_reply),
                        Status(kShuttingDown, kWhere, endpoint_.text + ": channel was dropped"));
  }
  if (Status status = check_spec(spec); !status.ok()) {
    return answer_later(std::move(on_reply), std::move(status));
  }
  if (calls_.size() >= kChannelCallsMax) {
    return answer_later(std::move(on_reply),
                        Status(kBusy, kWhere, endpoint_.text + ": 256 calls wait"));
  }
  uint64_t id = next_id_++;
  int64_t deadline = spec.deadline_ns != 0 ? spec.deadline_ns : now_ns() + kDefaultDeadlineNs;
  auto [added, fresh] = calls_.emplace(id, Call{std::move(spec), std::move(on_reply), deadline});
  FS3_CHECK(fresh);
  arm_deadline(deadline);
  if (connection_ != nullptr) {
    send(id, &added->second);
  } else {
    waiting_.push_back(id);
    connect();
  }
}

void Core::answer_later(ReplyCallback on_reply, Status status) {
  // Never from inside call(): callers may hold what the callback needs.
  reactor_.post([on_reply = std::move(on_reply), status = std::move(status)]() mutable {
    Reply reply;
    reply.status = std::move(status);
    on_reply(std::move(reply));
  });
}

void Core::send(uint64_t id, Call* call) {
  CallSpec& spec = call->spec;
  OutFrame frame;
  frame.request_id = id;
  frame.head = spec.capability + spec.body;
  wire::Header header;
  header.method = spec.method;
  header.request_id = id;
  header.capability_len = static_cast<uint16_t>(spec.capability.size());
  header.body_len = static_cast<uint32_t>(spec.body.size());
  header.body_crc = crc32c(0, frame.head.data(), frame.head.size());
  header.payload_len = static_cast<uint32_t>(total_length(spec.source));
  header.sink_len = static_cast<uint32_t>(total_length(spec.sink));
  uint32_t crc = 0;
  for (const RegionSlice& slice : spec.source) {
    frame.payload.push_back({slice.data(), slice.length});
    if (!spec.has_source_checksum) crc = crc32c(crc, slice.data(), slice.length);
  }
  header.payload_crc = spec.has_source_checksum ? spec.source_checksum : crc;
  int64_t left_ms = (call->deadline_ns - now_ns()) / kMillisecond;
  header.deadline_ms = static_cast<uint32_t>(std::clamp<int64_t>(left_ms, 1, UINT32_MAX));
  wire::encode(header, frame.header);
  call->queued = true;
  connection_->send(std::move(frame));
}

// Ends one call. Its memory is let go before the callback runs.
void Core::finish(Calls::iterator found, Reply reply) {
  uint64_t id = found->first;
  Call call = std::move(found->second);
  calls_.erase(found);
  if (connection_ != nullptr) {
    if (call.queued && !call.sent) connection_->detach(id);
    const wire::Header* arriving = connection_->arriving();
    if (arriving != nullptr && arriving->request_id == id) connection_->discard_payload();
  }
  if (!call.queued) std::erase(waiting_, id);
  call.on_reply(std::move(reply));
}

void Core::fail_all(const Status& why) {
  // Callbacks may call again: only the calls of now end.
  std::vector<uint64_t> ids;
  for (const auto& [id, call] : calls_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (uint64_t id : ids) {
    auto found = calls_.find(id);
    if (found == calls_.end()) continue;
    Reply reply;
    reply.status = why;
    finish(found, std::move(reply));
  }
}

void Core::arm_deadline(int64_t deadline_ns) {
  if (deadline_armed_ns_ != 0 && deadline_armed_ns_ <= deadline_ns) return;
  reactor_.cancel(deadline_timer_);
  deadline_armed_ns_ = deadline_ns;
  deadline_timer_ = reactor_.after(deadline_ns - now_ns(), [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->sweep_deadlines();
  });
}

// One timer serves all calls: the earliest deadline when it was armed. Calls that ended since leave
// it as it is, so the common case never touches the timers.
void Core::sweep_deadlines() {
  deadline_armed_ns_ = 0;
  int64_t now = now_ns();
  std::vector<uint64_t> late;
  int64_t next = INT64_MAX;
  for (const auto& [id, call] : calls_) {
    if (call.deadline_ns <= now) {
      late.push_back(id);
    } else {
      next = std::min(next, call.deadline_ns);
    }
  }
  if (next != INT64_MAX) arm_deadline(next);
  std::sort(late.begin(), late.end());
  for (uint64_t id : late) {
    auto found = calls_.find(id);
    if (found == calls_.end()) continue;
    Reply reply;
    reply.status = Status(kTimedOut, kWhere, endpoint_.text + ": no reply before the deadline");
    finish(found, std::move(reply));
  }
}

void Core::shut_down() {
  shut_down_ = true;
  abandon_attempt();
  reactor_.cancel(attempt_timer_);
  reactor_.cancel(deadline_timer_);
  if (connection_ != nullptr) connection_->close();
  connection_ = nullptr;
  fail_all(Status(kShuttingDown, kWhere, endpoint_.text + ": channel was dropped"));
}

// ---- connecting ------------------------------------------------------------------------------

// Begins an attempt unless one runs or is planned.
void Core::connect() {
  if (connecting_fd_ >= 0 || reconnect_planned_ || shut_down_) return;
  auto fd = start_connect(endpoint_);
  Status status = fd.status();
  if (status.ok()) {
    connecting_fd_ = *fd;
    status = reactor_.add_fd(connecting_fd_, EPOLLOUT, this);
    if (!status.ok()) close(std::exchange(connecting_fd_, -1));
  }
  if (!status.ok()) {
    // A Unix socket says no at once; the callers hear of it from the reactor like in every other
    // case.
    reconnect_planned_ = true;
    reactor_.post([weak = weak_from_this(), status] {
      if (auto self = weak.lock()) self->attempt_failed(status);
    });
    return;
  }
  attempt_timer_ = reactor_.after(kConnectTimeoutNs, [weak = weak_from_this()] {
    if (auto self = weak.lock()) {
      self->attempt_failed(Status(kTimedOut, kWhere, "no connection within 5 s"));
    }
  });
}

void Core::abandon_attempt() {
  if (connecting_fd_ < 0) return;
  reactor_.remove_fd(connecting_fd_);
  close(std::exchange(connecting_fd_, -1));
}

void Core::on_events(uint32_t) {
  auto self = shared_from_this();
  Status status = finish_connect(connecting_fd_, endpoint_);
  if (!status.ok()) return attempt_failed(status);
  connected();
}

void Core::connected() {
  int fd = std::exchange(connecting_fd_, -1);
  reactor_.remove_fd(fd);
  connection_ = std::make_shared<Connection>(reactor_, fd, this, &traffic_);
  hello_seen_ = false;
  Status status = connection_->start();
  if (!status.ok()) return attempt_failed(status);
  send_hello();
  // Requests follow at once: a server looks at nothing before it has accepted the hello.
  std::vector<uint64_t> ids = std::move(waiting_);
  waiting_.clear();
  for (uint64_t id : ids) send(id, &calls_.at(id));
}

void Core::send_hello() {
  OutFrame frame;
  frame.head = hello_body(self_);
  frame.header = hello_header(frame.head);
  connection_->send(std::move(frame));
}

// The attempt, or the connection before its hello, came to nothing: everybody who waits hears it,
// and the next attempt comes after a pause, when somebody wants it.
void Core::attempt_failed(const Status& why) {
  if (shut_down_) return;
  healthy_.store(false, std::memory_order_relaxed);
  reactor_.cancel(attempt_timer_);
  abandon_attempt();
  if (connection_ != nullptr) connection_->close();
  connection_ = nullptr;
  reconnect_delay_ns_ =
      std::clamp(2 * reconnect_delay_ns_, kReconnectDelayMinNs, kReconnectDelayMaxNs);
  reconnect_planned_ = true;
  reactor_.after(reconnect_delay_ns_, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self == nullptr) return;
    self->reconnect_planned_ = false;
    if (!self->waiting_.empty()) self->connect();
  });
  uint32_t code = why.code() == kWrongCluster ? kWrongCluster : kConnectionLost;
  fail_all(Status(code, kWhere,
                  "cannot connect to " + endpoint_.text + ": " + std::string(why.detail())));
}

void Core::hello_arrived(std::string_view body) {
  Status status = check_hello(self_, body);
  if (!status.ok()) return attempt_failed(status);
  hello_seen_ = true;
  reconnect_delay_ns_ = 0;
  healthy_.store(true, std::memory_order_relaxed);
  reactor_.cancel(attempt_timer_);
}

// ---- frames ----------------------------------------------------------------------------------

Status Core::frame_begins(const wire::Header& header, std::vector<std::span<std::byte>>* target) {
  auto bad = [](std::string_view detail) { return Status(kBadRequest, kWhere, detail); };
  if (header.kind == wire::Kind::kHello) {
    return hello_seen_ ? bad("kind: a second hello") : Status();
  }
  if (header.kind != wire::Kind::kReply) return bad("kind: a request came from a server");
  if (header.request_id == 0 && header.status != 0) return Status();  // the end of the connection
  if (!hello_seen_) return bad("kind: a reply came before the hello");
  auto found = calls_.find(header.request_id);
  if (found == calls_.end()) return Status();  // a late reply: its call has ended, drop it
  const auto& sink = found->second.spec.sink;
  if (header.payload_len > total_length(sink)) return bad("payload_len: exceeds the sink");
  for (const RegionSlice& slice : sink) {
    if (header.payload_len > 0 && slice.length > 0) target->push_back({slice.data(), slice.length});
  }
  return Status();
}

void Core::frame_arrived(const wire::Header& header, std::string head) {
  auto self = shared_from_this();
  if (header.kind == wire::Kind::kHello) return hello_arrived(head);
  if (header.request_id == 0) {
    Status status = wire::decode_error(header.status, head);
    connection_->close();
    return hello_seen_ ? connection_closed(status) : attempt_failed(status);
  }
  auto found = calls_.find(header.request_id);
  if (found == calls_.end()) return;
  Reply reply;
  if (header.status != 0) {
    reply.status = wire::decode_error(header.status, head);
  } else {
    reply.body = std::move(head);
    reply.sink_length = header.payload_len;
    reply.sink_checksum = header.payload_crc;
  }
  finish(found, std::move(reply));
}

// The sink may belong to another process, which can change it while it is filled. That costs this
// call, and nobody else's.
bool Core::survives_damage(const wire::Header& header) {
  auto found = calls_.find(header.request_id);
  if (found == calls_.end()) return false;
  const auto& sink = found->second.spec.sink;
  return std::any_of(sink.begin(), sink.end(),
                     [](const RegionSlice& slice) { return is_shared_memory(slice.data()); });
}

void Core::frame_damaged(const wire::Header& header) {
  auto self = shared_from_this();
  auto found = calls_.find(header.request_id);
  if (found == calls_.end()) return;
  Reply reply;
  reply.status = Status(kChecksumMismatch, kWhere, "the sink was changed while it was filled");
  finish(found, std::move(reply));
}

void Core::frame_sent(uint64_t request_id) {
  auto found = calls_.find(request_id);
  if (found != calls_.end()) found->second.sent = true;
}

void Core::connection_closed(const Status& why) {
  auto self = shared_from_this();
  if (!hello_seen_) return attempt_failed(why);
  connection_ = nullptr;
  fail_all(Status(kConnectionLost, kWhere, endpoint_.text + ": " + std::string(why.detail())));
}

class SocketChannel final : public Channel {
 public:
  explicit SocketChannel(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  ~SocketChannel() override {
    core_->reactor().post([core = core_] { core->shut_down(); });
  }

  void call(CallSpec spec, ReplyCallback on_reply) override {
    if (core_->reactor().on_thread()) return core_->call(std::move(spec), std::move(on_reply));
    core_->reactor().post(
        [core = core_, spec = std::move(spec), on_reply = std::move(on_reply)]() mutable {
          core->call(std::move(spec), std::move(on_reply));
        });
  }

  bool healthy() const override { return core_->healthy(); }

 private:
  const std::shared_ptr<Core> core_;
};

}  // namespace

Region Channel::register_memory(void* base, size_t size) {
  return Region{0, static_cast<std::byte*>(base), size};
}

Result<std::shared_ptr<Channel>> Channel::create(Reactor& reactor, std::string address,
                                                 Identity self) {
  if (Status status = check_identity(self); !status.ok()) return status;
  auto endpoint = resolve(address);
  if (!endpoint.ok()) return endpoint.status();
  auto core = std::make_shared<Core>(reactor, std::move(*endpoint), std::move(self));
  return std::shared_ptr<Channel>(std::make_shared<SocketChannel>(std::move(core)));
}

}  // namespace fs3::net
