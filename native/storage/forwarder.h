// Requests from this server to the servers of its targets' neighbours in their chains: FORWARD,
// SYNC_START, SYNC_DONE, FETCH.
//
// One channel per peer node, to the best of its addresses that can be reached. Each call carries a
// server capability that this process mints for itself and renews at half its lifetime.
// Thread safety: on the reactor's thread only. Every call ends with exactly one callback; after the
// Forwarder is destroyed none runs.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "auth/capability.h"
#include "base/buffer.h"
#include "base/function.h"
#include "base/reactor.h"
#include "craq/replica.h"
#include "net/rpc.h"

namespace fs3::storage {

// Who asks: the chain, and this server's target in it.
struct Origin {
  ChainId chain = 0;
  TargetId target = 0;
};

class Forwarder {
 public:
  Forwarder(Reactor& reactor, net::Identity self, std::shared_ptr<const auth::Keyring> keyring);
  ~Forwarder();

  // Addresses by node id, best first. Channels of nodes whose addresses changed are made anew;
  // their open calls end with kShuttingDown.
  void set_addresses(const std::map<uint32_t, std::vector<std::string>>& addresses);

  // `bytes` is what `effect` says is to be sent (empty for kNone), kept until the answer. Longer
  // than one payload: goes in pieces, one after the other.
  void forward(const craq::Forward& effect, Origin from, Buffer bytes,
               Function<void(craq::ForwardDone)> done);
  void ask_chunks(const craq::AskPeerChunks& effect, Origin from,
                  Function<void(craq::PeerChunks)> done);
  void tell_done(const craq::TellPeerDone& effect, Origin from,
                 Function<void(craq::PeerDone)> done);
  // The whole chunk, in as many requests as it takes; the bytes fit the checksum of the outcome.
  void fetch(const craq::Fetch& effect, Origin from, Function<void(craq::Fetched, Buffer)> done);

 private:
  struct Node {
    std::vector<std::string> addresses;
    size_t next = 0;  // which address the next channel tries
    std::shared_ptr<net::Channel> channel;
  };
  struct Pieces;
  struct Question;
  struct Fetching;

  const std::string& token();
  Result<std::shared_ptr<net::Channel>> channel(uint32_t node_id);
  void call(uint32_t node_id, net::CallSpec spec, net::ReplyCallback done);
  void send_piece(std::shared_ptr<Pieces> pieces);
  void send_rows(std::shared_ptr<Question> question);
  void fetch_piece(std::shared_ptr<Fetching> fetching);

  Reactor& reactor_;
  const net::Identity self_;
  const std::shared_ptr<const auth::Keyring> keyring_;
  std::map<uint32_t, Node> nodes_;
  std::string token_;
  uint64_t token_renew_ms_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace fs3::storage
