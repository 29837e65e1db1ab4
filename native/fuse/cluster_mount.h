// ClusterMount: a Mount of a cluster: one native client and the FUSE session on the same reactors.
//
// Thread safety: as Mount; update_routing() and counts() from any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "client/client.h"
#include "fuse/cluster_fs.h"
#include "fuse/mount.h"

namespace fs3::fuse {

class ClusterMount : public Mount {
 public:
  ClusterMount(SessionOptions session, uint32_t reactors, client::Options client,
               ClusterFsOptions filesystem);
  ~ClusterMount() override;

  // As Client::update_routing. ENOTCONN before start() and after stop().
  Status update_routing(std::string_view routing);

  struct Counts {
    client::Client::Statistics client{};
    size_t open_files = 0;
    size_t nodes = 0;
  };
  Counts counts() const;

 private:
  // The client dies with the file system; nobody else may keep it past the reactors.
  struct Link {
    std::mutex mutex;
    std::shared_ptr<client::Client> client;  // guarded by mutex
    ClusterFs* filesystem = nullptr;         // guarded by mutex
  };
  class LinkedFs;
  ClusterMount(SessionOptions session, uint32_t reactors, client::Options client,
               ClusterFsOptions filesystem, std::shared_ptr<Link> link);

  const std::shared_ptr<Link> link_;
};

}  // namespace fs3::fuse
