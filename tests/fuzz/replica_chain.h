// The cluster manager of the two replicas: which of them serves, who is the head, and what they
// hear of it. One step at a time, when its owner says so.
#pragma once

#include <algorithm>

#include "replica_cluster.h"

namespace fs3::fuzz {

constexpr int64_t kLeaseNs = 3200 * kMs;

class Chain : protected Cluster {
 protected:
  // A heartbeat: acknowledged only to who knows the newest chain.
  void renew(Node& node) {
    if (!node.alive() || node.version() != version_) return;
    node.lease_until_ns = now_ns_ + kLeaseNs;
    step(node, SetLease{node.lease_until_ns});
  }

  // The manager does not hear of the node for longer than its lease.
  void expire(Node& node) {
    now_ns_ = std::max(now_ns_, node.lease_until_ns + 1);
    demote(node);
  }

  void demote(Node& node) {
    Node& other = peer(node);
    if (node.state == PublicState::kOffline || node.state == PublicState::kLastsrv) return;
    bool last = node.state == PublicState::kServing && other.state != PublicState::kServing;
    node.state = last ? PublicState::kLastsrv : PublicState::kOffline;
    if (last && other.state == PublicState::kSyncing) other.state = PublicState::kWaiting;
    change_chain();
  }

  // The next step towards two serving replicas, if one is due.
  void manage() {
    for (Node& node : nodes_) {
      if (!node.alive()) {
        demote(node);
        start(node);
        return;
      }
    }
    for (Node& node : nodes_) {
      bool current = node.version() == version_ && node.replica->local() == LocalState::kUptodate;
      bool ready = node.state == PublicState::kSyncing || node.state == PublicState::kLastsrv;
      if (ready && current) {
        if (node.state == PublicState::kSyncing) head_ = 1 - index(node);  // joins as the tail
        if (node.state == PublicState::kLastsrv) head_ = index(node);
        node.state = PublicState::kServing;
        return change_chain();
      }
      bool out = node.state == PublicState::kOffline || node.state == PublicState::kWaiting;
      if (out && peer(node).state == PublicState::kServing) {
        node.state = PublicState::kSyncing;
        head_ = 1 - index(node);
        return change_chain();
      }
    }
  }

  void change_chain() {
    ++version_;
    if (nodes_[head_].state != PublicState::kServing) head_ = 1 - head_;
  }

  // The routing arrives at the node.
  void learn(Node& node) {
    if (!node.alive() || node.version() == version_) return;
    ChainView view;
    view.chain = 5;
    view.version = version_;
    view.self = node.state;
    Node& other = peer(node);
    bool in_line = node.state == PublicState::kServing || node.state == PublicState::kSyncing;
    bool other_in_line =
        other.state == PublicState::kServing || other.state == PublicState::kSyncing;
    if (in_line && other_in_line) {
      Peer neighbour{other.target, static_cast<uint32_t>(other.target),
                     other.state == PublicState::kSyncing};
      (index(node) == head_ ? view.successor : view.predecessor) = neighbour;
    }
    step(node, SetChain{view});
  }

  // Null when nobody can take updates.
  Node* head() {
    Node& node = nodes_[head_];
    return node.alive() && node.state == PublicState::kServing ? &node : nullptr;
  }

  ChainVersion version_ = 0;

 private:
  size_t head_ = 0;
};

}  // namespace fs3::fuzz
