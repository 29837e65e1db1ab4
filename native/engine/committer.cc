#include "engine/committer.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace fs3::engine {

Committer::Committer(Reactor& reactor, MetaStore& meta, std::unique_ptr<Executor> executor)
    : reactor_(reactor), meta_(meta), executor_(std::move(executor)) {}

Committer::~Committer() { executor_.reset(); }

// Hands over once per round of the reactor, so that what one round gathered shares one wake-up.
void Committer::submit(CommitItem item) {
  gathered_.push_back(std::move(item));
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  auto flush = [this, alive = std::weak_ptr<char>(alive_)] {
    if (alive.expired()) return;
    flush_scheduled_ = false;
    bool call;
    {
      std::lock_guard lock(mutex_);
      std::move(gathered_.begin(), gathered_.end(), std::back_inserter(queue_));
      call = !std::exchange(called_, true);
    }
    gathered_.clear();
    if (call) executor_->submit([this] { work(); });
  };
  if (reactor_.on_thread()) {
    reactor_.defer(std::move(flush));
  } else {
    reactor_.post(std::move(flush));
  }
}

// All that is queued by now.
void Committer::work() {
  Batch batch;
  {
    std::lock_guard lock(mutex_);
    called_ = false;
    batch.swap(queue_);
  }
  Status status = write(batch);
  reactor_.post(
      [this, alive = std::weak_ptr<char>(alive_), status, batch = std::move(batch)]() mutable {
        if (!alive.expired()) finish(std::move(batch), std::move(status));
      });
}

Status Committer::write(const Batch& batch) {
  if (broken_) return Status(EIO, "engine/commit", "an earlier write or sync failed");
  std::vector<disk::File*> files;
  std::vector<const std::vector<MetaChange>*> changes;
  bool sync = false;
  for (const CommitItem& item : batch) {
    // Few: one per size class.
    bool known = std::find(files.begin(), files.end(), item.written) != files.end();
    if (item.written != nullptr && !known) files.push_back(item.written);
    changes.push_back(&item.changes);
    sync |= item.synced;
  }
  Status status;
  for (disk::File* file : files) {
    if (status.ok()) status = file->datasync_now();
  }
  if (status.ok()) status = meta_.write(changes, sync);
  if (status.ok()) return status;
  broken_ = true;
  return Status(EIO, "engine/commit", status.to_string());
}

void Committer::finish(Batch batch, Status status) {
  bool synced = std::any_of(batch.begin(), batch.end(), [](auto& item) { return item.synced; });
  if (!status.ok()) failed_ = true;
  syncs_ += synced;
  // Before the callbacks: they may take what is free now.
  if (synced && status.ok()) held_.clear();
  for (CommitItem& item : batch) {
    if (!synced || failed_) {
      std::move(item.kept.begin(), item.kept.end(), std::back_inserter(held_));
    }
    item.kept.clear();
  }
  std::weak_ptr<char> alive = alive_;
  for (CommitItem& item : batch) {
    if (item.done) item.done(status);
    if (alive.expired()) return;
  }
}

}  // namespace fs3::engine
