#include "net/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "net/limits.h"

namespace fs3::net {
namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kUnix = "unix://";
constexpr int kBacklog = 1024;

Status invalid(const std::string& address, std::string_view why) {
  return Status(EINVAL, "net/address",
                "'" + address + "': " + std::string(why) + "; use tcp://host:port or unix:///path");
}

Result<Endpoint> resolve_unix(const std::string& address) {
  std::string path = address.substr(kUnix.size());
  Endpoint endpoint;
  endpoint.text = address;
  auto* unix_address = reinterpret_cast<sockaddr_un*>(&endpoint.storage);
  unix_address->sun_family = AF_UNIX;
  if (path.empty() || path[0] != '/') return invalid(address, "the path must be absolute");
  if (path.size() >= sizeof unix_address->sun_path) {
    return invalid(address, "the path is longer than 107 bytes");
  }
  std::memcpy(unix_address->sun_path, path.data(), path.size());
  endpoint.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return endpoint;
}

Result<Endpoint> resolve_tcp(const std::string& address) {
  std::string rest = address.substr(kTcp.size());
  size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon == 0) return invalid(address, "host or port is missing");
  std::string host = rest.substr(0, colon);
  std::string port = rest.substr(colon + 1);
  uint16_t number = 0;
  auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size()) {
    return invalid(address, "the port is not a number from 0 to 65535");
  }
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  int failed = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failed != 0) return invalid(address, gai_strerror(failed));
  Endpoint endpoint;
  endpoint.text = address;
  std::memcpy(&endpoint.storage, found->ai_addr, found->ai_addrlen);
  endpoint.length = found->ai_addrlen;
  freeaddrinfo(found);
  return endpoint;
}

const sockaddr* generic(const Endpoint& endpoint) {
  return reinterpret_cast<const sockaddr*>(&endpoint.storage);
}

void set_option(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof value);
}

// Whether nobody listens on the socket file any more.
bool abandoned(const Endpoint& endpoint) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  bool refused = connect(fd, generic(endpoint), endpoint.length) != 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

int bind_and_listen(int fd, const Endpoint& endpoint) {
  int failed = bind(fd, generic(endpoint), endpoint.length);
  if (failed != 0 && errno == EADDRINUSE && endpoint.is_unix() && abandoned(endpoint)) {
    unlink(reinterpret_cast<const sockaddr_un*>(&endpoint.storage)->sun_path);
    failed = bind(fd, generic(endpoint), endpoint.length);
  }
  return failed != 0 ? failed : listen(fd, kBacklog);
}

// "127.0.0.1:40112", "[::1]:40112".
std::string host_and_port(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET6) {
    auto port = ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
    return "[" + host_of(storage) + "]:" + std::to_string(port);
  }
  auto port = ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  return host_of(storage) + ":" + std::to_string(port);
}

}  // namespace

Status system_error(int number, std::string_view where, std::string_view what) {
  return Status(static_cast<uint32_t>(number), where,
                std::string(what) + ": " + std::strerror(number));
}

Result<Endpoint> resolve(const std::string& address) {
  if (address.starts_with(kUnix)) return resolve_unix(address);
  if (address.starts_with(kTcp)) return resolve_tcp(address);
  return invalid(address, "unknown scheme");
}

Result<int> start_connect(const Endpoint& endpoint) {
  int family = endpoint.storage.ss_family;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return system_error(errno, "net/connect", "socket");
  tune(fd, endpoint.is_unix());
  if (connect(fd, generic(endpoint), endpoint.length) == 0 || errno == EINPROGRESS) return fd;
  Status status = system_error(errno, "net/connect", endpoint.text);
  close(fd);
  return status;
}

Status finish_connect(int fd, const Endpoint& endpoint) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return error == 0 ? Status() : system_error(error, "net/connect", endpoint.text);
}

Result<int> start_listen(const Endpoint& endpoint) {
  int family = endpoint.storage.ss_family;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return system_error(errno, "net/listen", "socket");
  if (!endpoint.is_unix()) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind_and_listen(fd, endpoint) == 0) return fd;
  Status status = system_error(errno, "net/listen", endpoint.text);
  close(fd);
  return status;
}

std::string local_address(int fd, const Endpoint& endpoint) {
  if (endpoint.is_unix()) return endpoint.text;
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
  return std::string(kTcp) + host_and_port(storage);
}

void tune(int fd, bool is_unix) {
  // The plain options would turn off the kernel's own sizing of TCP buffers, so for TCP only the
  // privileged ones are tried, which give what is asked for.
  set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kSocketBufferBytes);
  if (is_unix) {
    int granted = 0;
    socklen_t length = sizeof granted;
    getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &granted, &length);
    if (granted < kSocketBufferBytes) set_option(fd, SOL_SOCKET, SO_SNDBUF, kSocketBufferBytes);
    return;
  }
  set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kSocketBufferBytes);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kTcpUserTimeoutMs / 1000);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kTcpUserTimeoutMs);
}

std::string host_of(const sockaddr_storage& peer) {
  char text[INET6_ADDRSTRLEN] = "";
  if (peer.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&peer)->sin_addr, text, sizeof text);
  } else if (peer.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&peer)->sin6_addr, text,
              sizeof text);
  }
  return text;
}

Principal describe_peer(int fd, const sockaddr_storage& peer) {
  Principal principal;
  if (peer.ss_family != AF_UNIX) {
    principal.address = host_and_port(peer);
    return principal;
  }
  principal.address = "unix";
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0) {
    principal.uid = credentials.uid;
    principal.authenticated = true;
  }
  return principal;
}

}  // namespace fs3::net
