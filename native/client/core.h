// Core: what all parts of one client share. Ops keep it alive by a shared_ptr; the Client facade
// closes it, after which every op ends with ESHUTDOWN and the last reference goes.
//
// Thread safety: everything here may be used from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "auth/capability.h"
#include "client/client.h"
#include "client/file.h"
#include "client/identity.h"
#include "client/lane.h"
#include "client/routing.h"

namespace fs3::client {

struct Counters {
  std::atomic<uint64_t> meta_calls{0}, meta_retries{0}, reads{0}, read_bytes{0}, writes{0},
      write_bytes{0}, data_retries{0}, routing_refreshes{0};
  std::atomic<uint64_t> dirty_bytes{0}, inflight{0};
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(Options options, const std::vector<Reactor*>& reactors,
       std::shared_ptr<const auth::Keyring> keyring);

  // The lane of the calling thread, else one by turns.
  Lane& lane();
  const std::vector<std::unique_ptr<Lane>>& lanes() const { return lanes_; }
  uint64_t next_request_id() { return next_request_id_.fetch_add(1, std::memory_order_relaxed); }

  bool closed() const { return closed_.load(std::memory_order_acquire); }
  Status closed_status() const;
  // True in a child made by fork(): locks may be held by threads that do not exist here.
  bool forked() const;
  // Marks closed and closes the lanes, each on its thread; `drained` runs on the last of them when
  // no call is open any more. False, and nothing happens, when it was closed before.
  bool close(Function<void()> drained);

  const Options options;
  const std::shared_ptr<const auth::Keyring> keyring;  // null but for servers
  Counters counters;
  // Until when a server may send chunk updates (Client::set_server_lease), on CLOCK_BOOTTIME.
  std::atomic<int64_t> server_until_ns{INT64_MAX};
  Routing routing;
  Identities identities;
  FileTable files;

 private:
  const int process_;
  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> next_request_id_{1};
  std::atomic<uint64_t> next_lane_{0};
  std::vector<std::unique_ptr<Lane>> lanes_;
};

}  // namespace fs3::client
