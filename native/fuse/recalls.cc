// What others changed: taken back from the kernel before it is acknowledged (leases.h).
#include <atomic>
#include <memory>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

// Runs `done` when everything that was begun has ended; never when something does not.
class Countdown {
 public:
  explicit Countdown(Function<void()> done) : done_(std::move(done)) {}
  void begin() { left_.fetch_add(1); }
  void end() {
    if (left_.fetch_sub(1) == 1) done_();
  }

 private:
  std::atomic<size_t> left_{1};
  Function<void()> done_;
};

}  // namespace

void ClusterFs::session(uint64_t number, int64_t until_ns) {
  leases_.set_session(number, until_ns);
  if (number != 0) {
    // What the kernel is told from here on is under this session; what it was told before, too.
    if (Handover* handover = options_.handover.get(); handover != nullptr) {
      handover->set_leases_of(client_->new_call_name().client_id);
    }
    return;
  }
  // Names outlive this by kKernelNameNs at most, and the next session begins later than that.
  (void)session_->invalidate_attributes(options_.root_inode);  // which no LOOKUP told of
  for (uint64_t node : nodes_.all()) (void)session_->invalidate_attributes(node);
}

void ClusterFs::recalled(uint64_t sequence, std::vector<client::Recall> recalls,
                         Function<void()> done) {
  leases_.recall(sequence, recalls);
  auto countdown = std::make_shared<Countdown>(std::move(done));
  auto end = [countdown] { countdown->end(); };
  for (client::Recall& recall : recalls) {
    if (recall.inode == 0) {
      countdown->begin();
      (void)session_->invalidate_entry(recall.parent, std::move(recall.name), end);
      continue;
    }
    client_->expire_size(recall.inode, UINT64_MAX);
    bool known = false;
    (void)session_->invalidate_attributes(recall.inode, &known);
    // It is being told of it just now, for kKernelNameNs at most: the acknowledgement waits for
    // that. (Or it has forgotten it, and FORGET is on its way.)
    if (!known && nodes_.knows(recall.inode)) countdown->begin();
    if (!nodes_.content_differs(recall.inode, recall.data_version)) continue;
    countdown->begin();
    (void)session_->invalidate_data(
        recall.inode, 0, 0, [this, inode = recall.inode, version = recall.data_version, end] {
          nodes_.content_dropped(inode, {.data_version = version});
          end();
        });
  }
  countdown->end();
}

}  // namespace fs3::fuse
