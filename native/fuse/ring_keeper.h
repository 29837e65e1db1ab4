// Tells the keeper of a mount (fs3/mount/keeper.py) what programs have registered, so that their
// rings outlive this process: one datagram each over the keeper's socket, in JSON.
//
//   {"keep": NAME, "target": HEX, "uid": n, "pid": n, "number": n}   with one or three descriptors
//   {"drop": NAME}
//
// A datagram that was sent is the keeper's, whatever becomes of this process.
//
// Thread safety: from any thread.
#pragma once

#include <string>
#include <vector>

#include "usrbio/server.h"

namespace fs3::fuse {

class SocketRingKeeper final : public usrbio::RingKeeper {
 public:
  // `socket` is not owned.
  explicit SocketRingKeeper(int socket) : socket_(socket) {}
  void keep(const usrbio::RingServer::Name& name, const std::vector<int>& descriptors) override;
  void drop(const std::string& name) override;

 private:
  void send(const std::string& text, const std::vector<int>& descriptors);
  const int socket_;
};

}  // namespace fs3::fuse
