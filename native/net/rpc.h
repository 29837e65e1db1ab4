// The native RPC: frames of proto/WIRE.md over a transport, one-sided transfers seen the same way
// on every transport.
//
//   client                                      server
//   Channel::call(CallSpec, on_reply)   ---->   Handler(ServerCall)
//                                               call->pull(offset, length, on_data)     bytes of
//                                               the caller's source call->push(offset, buffer)
//                                               bytes into the caller's sink
//   on_reply(Reply)                     <----   call->reply(status, body)
//
// On sockets the source travels as payload of the request (pull is a slice of what has arrived) and
// pushes travel as payload of the reply, contiguous from 0: pushes must come in order and fill the
// sink without holes.
//
// Thread safety: a Channel and an RpcServer live on one reactor; call() and reply() may be made
// from any thread (they post when the caller is elsewhere). Callbacks run on the reactor's thread,
// never inside call(). The reactor must outlive its channels, servers and the server calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"

namespace fs3::net {

enum class Role : uint8_t { kClient = 1, kStorage = 2, kMeta = 3, kMgmtd = 4 };

// Who this process says it is (the hello frame).
struct Identity {
  std::string cluster_id;   // 16 bytes, or empty when not known yet
  std::string instance_id;  // 16 bytes: client id or incarnation
  Role role = Role::kClient;
  uint32_t node_id = 0;
};

// Who the other side is, as far as the transport knows. Every handler gets one.
struct Principal {
  Role role = Role::kClient;   // claimed in the hello; proven only with TLS
  bool authenticated = false;  // by certificate, or by peer credentials of a Unix socket
  uint32_t uid = UINT32_MAX;   // peer credentials of a Unix socket, else UINT32_MAX
  uint32_t node_id = 0;
  std::string instance_id;  // 16 bytes
  std::string address;      // "127.0.0.1:40112" or "unix", for messages to people
};

// Memory the requester offers for one-sided transfers. On sockets registration is free and the id
// is 0.
struct Region {
  uint64_t id = 0;
  std::byte* base = nullptr;
  size_t size = 0;
};
struct RegionSlice {
  Region region;
  size_t offset = 0;
  size_t length = 0;
  std::byte* data() const { return region.base + offset; }
};

struct CallSpec {
  uint16_t method = 0;
  std::string body;
  std::string capability;           // empty or 80 bytes
  std::vector<RegionSlice> source;  // gathered in order; must stay valid until on_reply
  std::vector<RegionSlice> sink;    // scattered in order; may be written until on_reply
  std::vector<Buffer> keep_alive;   // dropped after on_reply: whatever source and sink point into
  uint32_t source_checksum = 0;     // CRC32C of the source when the caller already has it
  bool has_source_checksum = false;
  int64_t deadline_ns = 0;  // on now_ns(); 0 = 10 s from now
};

struct Reply {
  Status status;               // transport failures are kConnectionLost and kTimedOut, made locally
  std::string body;            // empty when status is not ok (the detail is in status)
  size_t sink_length = 0;      // bytes written into the sink, contiguous from its start
  uint32_t sink_checksum = 0;  // their CRC32C, verified on arrival
};
using ReplyCallback = Function<void(Reply)>;

// A connection to one address that comes back by itself: call() connects when needed; a call in
// flight when the connection breaks ends with kConnectionLost. At most 256 calls wait in a channel,
// further ones end with kBusy. After a failed attempt (5 s at most) the next one comes after a
// pause of 5 to 100 ms, for which calls wait. Destruction ends all open calls with kShuttingDown,
// soon after, on the reactor; it may happen on any thread and in a callback. Addresses:
// "tcp://host:port", "unix:///path".
class Channel {
 public:
  // Memory that calls will name as source or sink.
  static Region register_memory(void* base, size_t size);

  static Result<std::shared_ptr<Channel>> create(Reactor& reactor, std::string address,
                                                 Identity self);
  virtual ~Channel() = default;
  virtual void call(CallSpec spec, ReplyCallback on_reply) = 0;
  // True while the last connection attempt succeeded or none was made yet.
  virtual bool healthy() const = 0;
};

class ServerCall {
 public:
  virtual ~ServerCall() = default;  // a call dropped without reply answers kShuttingDown
  virtual uint16_t method() const = 0;
  virtual const Principal& principal() const = 0;
  virtual std::string_view body() const = 0;
  virtual std::string_view capability() const = 0;
  virtual int64_t deadline_ns() const = 0;
  virtual size_t source_length() const = 0;
  virtual size_t sink_length() const = 0;
  // CRC32C of the whole source as the transport verified it.
  virtual uint32_t source_checksum() const = 0;
  // REQUIRES: offset + length <= source_length(). The buffer is 4 KiB aligned when offset is.
  virtual void pull(size_t offset, size_t length, Function<void(Result<Buffer>)> on_data) = 0;
  // REQUIRES: in order, contiguous, total <= sink_length(). The buffer must not change until the
  // reply is sent (it is kept).
  virtual void push(Buffer data) = 0;
  // Exactly once; the call may be destroyed afterwards. A failed status drops what was pushed.
  virtual void reply(Status status, std::string body) = 0;
};
using ServerCallPtr = std::unique_ptr<ServerCall>;
using Handler = Function<void(ServerCallPtr)>;

class RpcServer {
 public:
  // The handler runs on the reactor's thread for every request. Create, listen and destroy on any
  // thread; once the destructor has returned the handler is not called any more.
  static Result<std::unique_ptr<RpcServer>> create(Reactor& reactor, Identity self,
                                                   Handler handler);
  virtual ~RpcServer() = default;
  // "tcp://127.0.0.1:0" picks a free port. Returns the address with the real port.
  virtual Result<std::string> listen(const std::string& address) = 0;

  struct Statistics {
    uint64_t connections, requests, bad_frames, bytes_in, bytes_out;
    uint32_t open_connections, requests_in_flight;
  };
  virtual Statistics statistics() const = 0;
};

}  // namespace fs3::net
