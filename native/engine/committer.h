// Committer: the batches of the engine's metadata, written on an executor. It gathers what many
// stages and commits want durable and makes it so at once: one datasync per block file that was
// written, then one RocksDB batch with one sync.
//
// The order inside a batch is the crash argument: data is durable before any metadata that names it
// is written at all, so recovered metadata never points at bytes that did not arrive.
//
// Thread safety: submit() on the reactor's thread; callbacks run there. Items become durable in the
// order of submission. Ownership: `kept` of an item is dropped on the reactor's thread once the
// item is durable - for an unsynced item that is after the next synced one - and never when the
// committer failed.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/executor.h"
#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"
#include "disk/disk.h"
#include "engine/meta_store.h"

namespace fs3::engine {

struct CommitItem {
  std::vector<MetaChange> changes;
  disk::File* written = nullptr;  // whose data must be durable first
  bool synced = true;
  std::vector<std::shared_ptr<const void>> kept;  // what must not be reused before
  Function<void(Status)> done;                    // may be empty
};

class Committer {
 public:
  // `executor`: where writes block.
  Committer(Reactor& reactor, MetaStore& meta, std::unique_ptr<Executor> executor);
  // Ends what is being written, drops what is queued and callbacks not yet made.
  ~Committer();

  void submit(CommitItem item);
  bool failed() const { return failed_; }
  // The engine gives up: everything later fails.
  void fail() { failed_ = true; }
  uint64_t syncs() const { return syncs_; }
  // Unsynced items hold something back.
  bool holds_back() const { return !held_.empty(); }

 private:
  using Batch = std::vector<CommitItem>;
  void work();
  Status write(const Batch& batch);
  void finish(Batch batch, Status status);

  Reactor& reactor_;
  MetaStore& meta_;
  // Reactor's thread.
  bool failed_ = false;
  bool flush_scheduled_ = false;
  uint64_t syncs_ = 0;
  Batch gathered_;
  std::vector<std::shared_ptr<const void>> held_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  // Guarded by mutex_.
  std::mutex mutex_;
  Batch queue_;
  bool called_ = false;  // a work() that has not begun will find what is queued
  // Executor.
  bool broken_ = false;

  std::unique_ptr<Executor> executor_;  // last: its job uses all of the above
};

}  // namespace fs3::engine
