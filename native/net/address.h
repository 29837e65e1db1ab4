// Addresses and sockets: "tcp://host:port" (IPv6 hosts in brackets) and "unix:///path".
//
// Thread safety: pure functions. Every descriptor made here is non-blocking and close-on-exec and
// belongs to the caller.
#pragma once

#include <sys/socket.h>

#include <string>

#include "base/status.h"
#include "net/rpc.h"

namespace fs3::net {

// A resolved address.
struct Endpoint {
  std::string text;  // as given, for messages
  sockaddr_storage storage{};
  socklen_t length = 0;
  bool is_unix() const { return storage.ss_family == AF_UNIX; }
};

// Resolves names, so it may block; EINVAL names what is wrong with the text.
Result<Endpoint> resolve(const std::string& address);

// A socket whose connection attempt has begun; EINPROGRESS is success. Any other failure of
// connect(2) is returned.
Result<int> start_connect(const Endpoint& endpoint);
// The result of the attempt, once the socket is writable.
Status finish_connect(int fd, const Endpoint& endpoint);

// A listening socket. A Unix socket file left behind by a process that died is replaced; one that
// somebody listens on is EADDRINUSE.
Result<int> start_listen(const Endpoint& endpoint);
// "tcp://127.0.0.1:40112" with the port that the kernel chose.
std::string local_address(int fd, const Endpoint& endpoint);

// Sets what every stream of ours wants: no delay, large buffers, keep-alive.
void tune(int fd, bool is_unix);

// address, uid and authenticated of an accepted connection.
Principal describe_peer(int fd, const sockaddr_storage& peer);
// The host part of a peer, to count connections by; empty for Unix sockets.
std::string host_of(const sockaddr_storage& peer);

Status system_error(int number, std::string_view where, std::string_view what);

}  // namespace fs3::net
