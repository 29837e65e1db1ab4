#include "fuse/ring_keeper.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/check.h"

namespace fs3::fuse {
namespace {

constexpr size_t kDescriptorsMax = 3;

std::string hex(const std::string& bytes) {
  std::string text;
  for (unsigned char byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}

}  // namespace

void SocketRingKeeper::keep(const usrbio::RingServer::Name& name,
                            const std::vector<int>& descriptors) {
  // The name has the form of a UUID: nothing in it needs quoting.
  send("{\"keep\": \"" + name.name + "\", \"target\": \"" + hex(name.target) + "\", \"uid\": " +
           std::to_string(name.owner.uid) + ", \"pid\": " + std::to_string(name.owner.pid) +
           ", \"number\": " + std::to_string(name.number) + "}",
       descriptors);
}

void SocketRingKeeper::drop(const std::string& name) { send("{\"drop\": \"" + name + "\"}", {}); }

void SocketRingKeeper::send(const std::string& text, const std::vector<int>& descriptors) {
  FS3_CHECK(descriptors.size() <= kDescriptorsMax);
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsMax * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    size_t bytes = descriptors.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(header), descriptors.data(), bytes);
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return;
  std::fprintf(stderr, "fs3 mount: the keeper does not hear of a ring (%s): it would not survive\n",
               std::strerror(errno));
}

}  // namespace fs3::fuse
