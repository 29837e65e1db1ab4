#include "fuse/cluster_mount.h"

#include <cerrno>

namespace fs3::fuse {

// Tells the mount when the file system goes.
class ClusterMount::LinkedFs : public ClusterFs {
 public:
  LinkedFs(std::shared_ptr<client::Client> client, ClusterFsOptions options,
           std::shared_ptr<Link> link)
      : ClusterFs(client, options), link_(std::move(link)) {
    std::lock_guard lock(link_->mutex);
    link_->client = std::move(client);
    link_->filesystem = this;
  }
  ~LinkedFs() override { unlink(); }

  void shutdown() override {
    unlink();
    ClusterFs::shutdown();
  }

 private:
  void unlink() {
    std::lock_guard lock(link_->mutex);
    link_->client = nullptr;
    link_->filesystem = nullptr;
  }
  const std::shared_ptr<Link> link_;
};

ClusterMount::ClusterMount(SessionOptions session, uint32_t reactors, client::Options client,
                           ClusterFsOptions filesystem)
    : ClusterMount(std::move(session), reactors, std::move(client), filesystem,
                   std::make_shared<Link>()) {}

ClusterMount::ClusterMount(SessionOptions session, uint32_t reactors, client::Options client,
                           ClusterFsOptions filesystem, std::shared_ptr<Link> link)
    : Mount(std::move(session), reactors,
            [client = std::move(client), filesystem,
             link](const std::vector<Reactor*>& on) -> Result<std::unique_ptr<Filesystem>> {
              auto made = client::Client::create(client, on);
              if (!made.ok()) return made.status();
              ClusterFsOptions options = filesystem;
              options.timers = on.front();
              options.reactors = on;
              return std::unique_ptr<Filesystem>(
                  std::make_unique<LinkedFs>(std::move(made).value(), options, link));
            }),
      link_(std::move(link)) {}

ClusterMount::~ClusterMount() = default;

Status ClusterMount::update_routing(std::string_view routing) {
  std::lock_guard lock(link_->mutex);
  if (link_->client == nullptr) {
    return Status(ENOTCONN, "fuse/mount", "the mount is not running");
  }
  link_->client->update_routing(routing);
  return Status();
}

ClusterMount::Counts ClusterMount::counts() const {
  Counts counts;
  std::lock_guard lock(link_->mutex);
  if (link_->client == nullptr) return counts;
  counts.client = link_->client->statistics();
  auto own = link_->filesystem->counts();
  counts.open_files = own.open_files;
  counts.nodes = own.nodes;
  return counts;
}

}  // namespace fs3::fuse
