// One request to one chunk's chain, repeated until it is answered, refused for good, or its
// deadline passes.
//
// Each attempt takes the newest routing, so a head change or a lost replica moves the request by
// itself. A read goes to the serving target with the fewest open calls of this lane, one that just
// failed last; an update goes to the head. What may be repeated, and why that is safe:
//  - reads change nothing;
//  - updates carry one UpdateIdentity in all attempts, which every replica remembers: the second
//    arrival of an update is answered like the first and not applied.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/function.h"
#include "base/ids.h"
#include "client/routing.h"
#include "net/rpc.h"

namespace fs3::client {

class Core;
class Lane;

// Where one attempt goes.
struct Route {
  TargetId target = 0;
  ChainId chain = 0;
  ChainVersion version = 0;
};

// The capability of a file or of a server. Thread safe.
class Credential {
 public:
  virtual ~Credential() = default;
  // 80 bytes, or empty when there is none. May start a renewal when the token is past half its
  // life.
  virtual std::string token(const std::shared_ptr<Core>& core, Lane& lane) = 0;
  // A fresh one, then `done` on the lane.
  virtual void renew(const std::shared_ptr<Core>& core, Lane& lane,
                     Function<void(Status)> done) = 0;
};

struct ChunkCall {
  uint16_t method = 0;
  std::shared_ptr<Placement> placement;
  uint64_t chunk_index = 0;
  bool to_head = false;
  size_t bytes = 0;  // of source or sink, for the window
  std::shared_ptr<Credential> credential;
  // Body, source and sink for one attempt.
  Function<void(const Route&, net::CallSpec&)> fill;
  // On the lane's thread. kTimedOut means that the deadline passed and the outcome is unknown.
  Function<void(net::Reply)> done;
};

void start_chunk_call(std::shared_ptr<Core> core, Lane& lane, ChunkCall call);

}  // namespace fs3::client
