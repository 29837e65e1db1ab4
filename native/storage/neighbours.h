// Whether the servers of this server's chains can be reached from here, for the heartbeats: mgmtd
// sees every server, but not that two of them do not see each other.
//
// Each is asked a few times a second (PING), on a connection of its own: what waits behind large
// transfers, or on a slow disk, is not out of reach. An attempt that failed is given up with its
// connection, so that the first question after the network healed is not held up by an old attempt.
// Thread safety: the reactor's thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "net/rpc.h"
#include "storage/contact.h"

namespace fs3::storage {

// A server that has not answered for so long.
struct Silence {
  uint32_t node_id = 0;
  double silent_s = 0;
};

class Neighbours {
 public:
  Neighbours(Reactor& reactor, net::Identity self);
  ~Neighbours();

  // Addresses by node id, best first: these and no others, from now on. One whose addresses changed
  // counts as heard now.
  void watch(const std::map<uint32_t, std::vector<std::string>>& addresses);
  // Every 50 ms or so.
  void tick(int64_t now_ns);
  // Those whose silence is worth telling; by node id.
  std::vector<Silence> silences(int64_t now_ns) const;

 private:
  struct Neighbour {
    std::vector<std::string> addresses;
    Contact contact;
    size_t next = 0;  // which address the next connection tries
    std::shared_ptr<net::Channel> channel;
    int64_t due_ns = 0;
    uint64_t asked = 0;  // names the question that is open; 0: none
  };

  void ask(uint32_t node_id, Neighbour& neighbour, int64_t now_ns);
  void answered(uint32_t node_id, uint64_t question, const Status& status);

  Reactor& reactor_;
  const net::Identity self_;
  std::map<uint32_t, Neighbour> neighbours_;
  uint64_t questions_ = 0;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace fs3::storage
