// RpcServer over sockets: listeners, the connections they accept, and the calls in their hands.
//
//   Listener  accepts          -> Peer (one connection)  -> SocketCall (one request)
//
// A SocketCall may live on any thread and outlive the connection and the server; it holds its Peer,
// and its reply is dropped when the connection is gone. All else stays on the reactor's thread.
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <unordered_map>

#include "base/check.h"
#include "base/crc32c.h"
#include "net/address.h"
#include "net/connection.h"
#include "net/limits.h"
#include "net/peer.h"
#include "net/rpc.h"
#include "wire/error_detail.h"
#include "wire/frame.h"

namespace fs3::net {
namespace {

constexpr const char* kWhere = "net/server";
constexpr int kAcceptsPerRound = 64;
constexpr int64_t kAcceptPauseNs = 100 * kMillisecond;  // when descriptors have run out

struct Counters {
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> bad_frames{0};
  std::atomic<uint32_t> open_connections{0};
  std::atomic<uint32_t> requests_in_flight{0};
  Traffic traffic;
};

class Peer;
class Listener;

// What peers and listeners share.
struct Core : std::enable_shared_from_this<Core> {
  Core(Reactor& r, Identity s, Handler h) : reactor(r), self(std::move(s)), handler(std::move(h)) {}

  void accepted(int fd, const sockaddr_storage& peer);
  bool admit(const std::string& host);
  void forget(Peer* peer, const std::string& host);
  void sweep();
  void shut_down();

  Reactor& reactor;
  const Identity self;
  Handler handler;
  Counters counters;

  bool closed = false;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::unordered_map<Peer*, std::shared_ptr<Peer>> peers;
  std::map<std::string, size_t> peers_by_host;
  size_t bytes_in_flight = 0;
};

class Peer final : public Connection::Owner, public std::enable_shared_from_this<Peer> {
 public:
  Peer(std::shared_ptr<Core> core, Principal principal, std::string host)
      : core_(std::move(core)),
        principal_(std::move(principal)),
        host_(std::move(host)),
        accepted_ns_(now_ns()) {}

  Status start(int fd);
  void close();
  void check_progress(int64_t now);
  const Principal& principal() const { return principal_; }
  Reactor& reactor() { return core_->reactor; }
  // From any thread, once per call: `frame` is the reply, or none (size 0) when none is wanted.
  void reply(OutFrame frame, bool wanted);

  Status frame_begins(const wire::Header& header,
                      std::vector<std::span<std::byte>>* target) override;
  void frame_arrived(const wire::Header& header, std::string head) override;
  void frame_sent(uint64_t request_id) override;
  void connection_closed(const Status& why) override;

 private:
  static size_t cost(const wire::Header& header);
  void hello_arrived(const std::string& body);
  void refuse(const Status& why);
  void answer_busy(const wire::Header& header);
  void begin_request(const wire::Header& header);
  void end_request(uint64_t request_id);
  void gone();

  const std::shared_ptr<Core> core_;
  Principal principal_;  // constant once the hello was accepted, so calls read it from any thread
  const std::string host_;
  const int64_t accepted_ns_;
  std::shared_ptr<Connection> connection_;
  bool hello_seen_ = false;
  bool too_much_ = false;  // the arriving request exceeds what the server can hold
  Buffer arriving_payload_;
  // Requests accepted and not yet answered completely, with what each counts against the bounds.
  std::unordered_map<uint64_t, size_t> open_requests_;
  size_t open_bytes_ = 0;
};

class SocketCall final : public ServerCall {
 public:
  SocketCall(std::shared_ptr<Peer> peer, const wire::Header& header, std::string head,
             Buffer payload)
      : peer_(std::move(peer)),
        header_(header),
        head_(std::move(head)),
        payload_(std::move(payload)) {
    int64_t left =
        header.deadline_ms == 0 ? kDefaultDeadlineNs : int64_t{header.deadline_ms} * kMillisecond;
    deadline_ns_ = now_ns() + left;
  }
  ~SocketCall() override {
    if (!replied_)
      reply(Status(kShuttingDown, kWhere, "the call was dropped without an answer"), {});
  }

  uint16_t method() const override { return header_.method; }
  const Principal& principal() const override { return peer_->principal(); }
  std::string_view body() const override {
    return std::string_view(head_).substr(header_.capability_len);
  }
  std::string_view capability() const override {
    return std::string_view(head_).substr(0, header_.capability_len);
  }
  int64_t deadline_ns() const override { return deadline_ns_; }
  size_t source_length() const override { return header_.payload_len; }
  size_t sink_length() const override { return header_.sink_len; }
  uint32_t source_checksum() const override { return header_.payload_crc; }

  void pull(size_t offset, size_t length, Function<void(Result<Buffer>)> on_data) override {
    FS3_CHECK(offset <= source_length() && length <= source_length() - offset);
    on_data(payload_.slice(offset, length));
  }

  void push(Buffer data) override {
    FS3_CHECK(data.size() <= sink_length() - pushed_length_);
    pushed_length_ += data.size();
    if (!data.empty()) pushed_.push_back(std::move(data));
  }

  void reply(Status status, std::string body) override;

 private:
  const std::shared_ptr<Peer> peer_;
  const wire::Header header_;
  const std::string head_;
  const Buffer payload_;
  int64_t deadline_ns_;
  std::vector<Buffer> pushed_;
  size_t pushed_length_ = 0;
  bool replied_ = false;
};

OutFrame make_reply(uint64_t request_id, uint16_t method, uint32_t status, std::string body,
                    std::vector<Buffer> payload) {
  OutFrame frame;
  frame.request_id = request_id;
  frame.head = std::move(body);
  frame.keep = std::move(payload);
  wire::Header header;
  header.kind = wire::Kind::kReply;
  header.method = method;
  header.status = status;
  header.request_id = request_id;
  header.body_len = static_cast<uint32_t>(frame.head.size());
  header.body_crc = crc32c(0, frame.head.data(), frame.head.size());
  for (const Buffer& piece : frame.keep) {
    frame.payload.push_back(piece.span());
    header.payload_len += static_cast<uint32_t>(piece.size());
    header.payload_crc = crc32c(header.payload_crc, piece.data(), piece.size());
  }
  wire::encode(header, frame.header);
  return frame;
}

void SocketCall::reply(Status status, std::string body) {
  FS3_CHECK(!replied_);
  replied_ = true;
  bool wanted = (header_.flags & wire::kFlagNoReply) == 0;
  if (status.ok() && body.size() > wire::kMaxBody) {
    status = Status(EMSGSIZE, kWhere, "the reply's body exceeds 4 MiB; ask for less");
  }
  if (!status.ok()) {
    pushed_.clear();
    body = wire::encode_error(status);
  }
  // Made here, so that checksums of large replies are computed on the caller's thread.
  OutFrame frame;
  frame.request_id = header_.request_id;
  if (wanted) {
    frame = make_reply(header_.request_id, header_.method, status.code(), std::move(body),
                       std::move(pushed_));
  }
  if (peer_->reactor().on_thread()) return peer_->reply(std::move(frame), wanted);
  peer_->reactor().post([peer = peer_, frame = std::move(frame), wanted]() mutable {
    peer->reply(std::move(frame), wanted);
  });
}

// ---- one connection --------------------------------------------------------------------------

Status Peer::start(int fd) {
  connection_ = std::make_shared<Connection>(core_->reactor, fd, this, &core_->counters.traffic);
  return connection_->start();
}

void Peer::close() {
  if (connection_ == nullptr) return;
  connection_->close();
  gone();
}

void Peer::gone() {
  auto self = shared_from_this();
  connection_ = nullptr;
  core_->bytes_in_flight -= open_bytes_;
  core_->counters.requests_in_flight.fetch_sub(static_cast<uint32_t>(open_requests_.size()),
                                               std::memory_order_relaxed);
  open_requests_.clear();
  open_bytes_ = 0;
  core_->forget(this, host_);
}

void Peer::check_progress(int64_t now) {
  Status status = connection_->check_progress(now);
  if (!hello_seen_ && now - accepted_ns_ > kHelloTimeoutNs) {
    status = Status(kTimedOut, kWhere, "no hello within 5 s");
  }
  if (!status.ok()) close();
}

size_t Peer::cost(const wire::Header& header) {
  return wire::kHeaderSize + header.capability_len + header.body_len + header.payload_len +
         header.sink_len;
}

Status Peer::frame_begins(const wire::Header& header, std::vector<std::span<std::byte>>* target) {
  auto bad = [](std::string_view detail) { return Status(kBadRequest, kWhere, detail); };
  if (!hello_seen_) {
    return header.kind == wire::Kind::kHello ? Status() : bad("kind: the first frame is no hello");
  }
  if (header.kind != wire::Kind::kRequest) return bad("kind: a server takes requests only");
  if (open_requests_.contains(header.request_id)) return bad("request_id: is already open");
  too_much_ = core_->bytes_in_flight + cost(header) > kServerBytesMax;
  if (header.payload_len > 0 && !too_much_) {
    arriving_payload_ = Buffer::allocate(header.payload_len);
    target->push_back(arriving_payload_.span());
  }
  return Status();
}

void Peer::frame_arrived(const wire::Header& header, std::string head) {
  auto self = shared_from_this();
  if (header.kind == wire::Kind::kHello) return hello_arrived(head);
  core_->counters.requests.fetch_add(1, std::memory_order_relaxed);
  if (too_much_) return answer_busy(header);
  begin_request(header);
  core_->handler(std::make_unique<SocketCall>(self, header, std::move(head),
                                              std::exchange(arriving_payload_, Buffer())));
}

void Peer::hello_arrived(const std::string& body) {
  Status status = check_client_hello(core_->self, body, &principal_);
  if (status.code() == kWrongCluster) return refuse(status);
  if (!status.ok()) {
    connection_->close();
    return connection_closed(status);
  }
  hello_seen_ = true;
  OutFrame frame;
  frame.head = hello_body(core_->self);
  frame.header = hello_header(frame.head);
  connection_->send(std::move(frame));
}

void Peer::refuse(const Status& why) {
  hello_seen_ = true;  // the hello bound no longer applies, the one for closing does
  connection_->send(make_reply(0, 0, why.code(), wire::encode_error(why), {}));
  connection_->close_after_flush();
}

void Peer::answer_busy(const wire::Header& header) {
  begin_request(header);  // counted like any other until its answer has left
  Status busy(kBusy, kWhere, "the server holds too many requests; retry after a pause");
  reply(make_reply(header.request_id, header.method, busy.code(), wire::encode_error(busy), {}),
        (header.flags & wire::kFlagNoReply) == 0);
}

void Peer::begin_request(const wire::Header& header) {
  size_t bytes = cost(header);
  open_requests_.emplace(header.request_id, bytes);
  open_bytes_ += bytes;
  core_->bytes_in_flight += bytes;
  core_->counters.requests_in_flight.fetch_add(1, std::memory_order_relaxed);
  if (open_requests_.size() >= kConnectionRequestsMax || open_bytes_ >= kConnectionBytesMax) {
    connection_->pause_reading();
  }
}

// The answer has left: the request no longer counts.
void Peer::end_request(uint64_t request_id) {
  auto found = open_requests_.find(request_id);
  if (found == open_requests_.end()) return;
  open_bytes_ -= found->second;
  core_->bytes_in_flight -= found->second;
  open_requests_.erase(found);
  core_->counters.requests_in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (open_requests_.size() < kConnectionRequestsMax && open_bytes_ < kConnectionBytesMax) {
    connection_->resume_reading();
  }
}

void Peer::reply(OutFrame frame, bool wanted) {
  if (connection_ == nullptr) return;
  if (!wanted) return end_request(frame.request_id);
  connection_->send(std::move(frame));
}

void Peer::frame_sent(uint64_t request_id) { end_request(request_id); }

void Peer::connection_closed(const Status& why) {
  if (why.code() == kBadRequest) {
    core_->counters.bad_frames.fetch_add(1, std::memory_order_relaxed);
  }
  gone();
}

// ---- listening -------------------------------------------------------------------------------

class Listener final : public Reactor::FdHandler {
 public:
  Listener(Core& core, int fd, const Endpoint& endpoint)
      : core_(core), fd_(fd), endpoint_(endpoint) {}
  ~Listener() override {
    if (listening_) core_.reactor.remove_fd(fd_);
    core_.reactor.cancel(pause_timer_);
    ::close(fd_);
    if (endpoint_.is_unix()) {
      unlink(reinterpret_cast<const sockaddr_un*>(&endpoint_.storage)->sun_path);
    }
  }

  Status start() {
    Status status = core_.reactor.add_fd(fd_, EPOLLIN, this);
    listening_ = status.ok();
    return status;
  }

  void on_events(uint32_t) override {
    for (int i = 0; i < kAcceptsPerRound; ++i) {
      sockaddr_storage peer{};
      socklen_t length = sizeof peer;
      int fd =
          accept4(fd_, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        core_.accepted(fd, peer);
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        return pause();
      } else if (errno != EINTR && errno != ECONNABORTED) {
        return;
      }
    }
  }

 private:
  // The backlog stays readable while nothing can be accepted: look away for a moment.
  void pause() {
    core_.reactor.remove_fd(fd_);
    listening_ = false;
    pause_timer_ = core_.reactor.after(kAcceptPauseNs, [this] {
      if (!start().ok()) pause_again();
    });
  }
  void pause_again() {
    pause_timer_ = core_.reactor.after(kAcceptPauseNs, [this] {
      if (!start().ok()) pause_again();
    });
  }

  Core& core_;
  const int fd_;
  const Endpoint endpoint_;
  bool listening_ = false;
  Reactor::TimerId pause_timer_ = 0;
};

void Core::accepted(int fd, const sockaddr_storage& address) {
  std::string host = host_of(address);
  if (!admit(host)) {
    close(fd);
    return;
  }
  tune(fd, address.ss_family == AF_UNIX);
  auto peer = std::make_shared<Peer>(shared_from_this(), describe_peer(fd, address), host);
  if (!peer->start(fd).ok()) return;
  peers.emplace(peer.get(), peer);
  if (!host.empty()) ++peers_by_host[host];
  counters.connections.fetch_add(1, std::memory_order_relaxed);
  counters.open_connections.fetch_add(1, std::memory_order_relaxed);
}

bool Core::admit(const std::string& host) {
  if (peers.size() >= kConnectionsMax) return false;
  if (host.empty()) return true;
  auto found = peers_by_host.find(host);
  return found == peers_by_host.end() || found->second < kConnectionsPerAddressMax;
}

void Core::forget(Peer* peer, const std::string& host) {
  peers.erase(peer);
  counters.open_connections.fetch_sub(1, std::memory_order_relaxed);
  auto found = peers_by_host.find(host);
  if (found != peers_by_host.end() && --found->second == 0) peers_by_host.erase(found);
}

// Every second: peers that hold a connection without using it.
void Core::sweep() {
  if (closed) return;
  int64_t now = now_ns();
  std::vector<std::shared_ptr<Peer>> all;
  for (const auto& [key, peer] : peers) all.push_back(peer);
  for (const auto& peer : all) peer->check_progress(now);
  reactor.after(kSecond, [weak = weak_from_this()] {
    if (auto core = weak.lock()) core->sweep();
  });
}

void Core::shut_down() {
  closed = true;
  listeners.clear();
  std::vector<std::shared_ptr<Peer>> all;
  for (const auto& [key, peer] : peers) all.push_back(peer);
  for (const auto& peer : all) peer->close();
}

class SocketServer final : public RpcServer {
 public:
  SocketServer(Reactor& reactor, Identity self, Handler handler)
      : core_(std::make_shared<Core>(reactor, std::move(self), std::move(handler))) {}
  ~SocketServer() override {
    core_->reactor.run_and_wait([this] { core_->shut_down(); });
  }

  void start() {
    core_->reactor.run_and_wait([this] { core_->sweep(); });
  }

  Result<std::string> listen(const std::string& address) override {
    auto endpoint = resolve(address);
    if (!endpoint.ok()) return endpoint.status();
    Result<std::string> result(address);
    core_->reactor.run_and_wait([&] { result = listen_here(*endpoint); });
    return result;
  }

  Statistics statistics() const override {
    const Counters& c = core_->counters;
    auto get = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
    return Statistics{get(c.connections),       get(c.requests),          get(c.bad_frames),
                      get(c.traffic.bytes_in),  get(c.traffic.bytes_out), get(c.open_connections),
                      get(c.requests_in_flight)};
  }

 private:
  Result<std::string> listen_here(const Endpoint& endpoint) {
    auto fd = start_listen(endpoint);
    if (!fd.ok()) return fd.status();
    auto listener = std::make_unique<Listener>(*core_, *fd, endpoint);
    Status status = listener->start();
    if (!status.ok()) return status;
    core_->listeners.push_back(std::move(listener));
    return local_address(*fd, endpoint);
  }

  const std::shared_ptr<Core> core_;
};

}  // namespace

Result<std::unique_ptr<RpcServer>> RpcServer::create(Reactor& reactor, Identity self,
                                                     Handler handler) {
  if (Status status = check_identity(self); !status.ok()) return status;
  auto server = std::make_unique<SocketServer>(reactor, std::move(self), std::move(handler));
  server->start();
  return std::unique_ptr<RpcServer>(std::move(server));
}

}  // namespace fs3::net
