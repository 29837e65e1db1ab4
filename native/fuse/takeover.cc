// Taking over a mount from a process that was killed or replaced (handover.h): its open files are
// opened again, under their old numbers; requests that it had not answered come once more.
//
// Files are opened as the owner of the file system: that their openers may use them was decided
// when they opened them, whatever the mode is now. The client is another one, so the sessions of
// the process before end as those of a dead client do: the service asks storage for the lengths.
// What this process has to know at once, it has measured: a handle that was written through is
// settled up to the last byte that storage holds.
#include <fcntl.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "client/retry.h"
#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

constexpr size_t kAtOnce = 64;  // handles that are opened together
constexpr int kTriesMax = 20;   // of a metadata deadline each, for a service that is down
constexpr uint64_t kAnyLength = 1ull << 62;  // fs3/limits.py FILE_BYTES_MAX

// Counts what is under way, for a thread that waits.
class Latch {
 public:
  void begin(size_t at_most) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ < at_most; });
    ++open_;
  }
  void end() {
    std::lock_guard lock(mutex_);
    --open_;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t open_ = 0;  // guarded by mutex_
};

// What an open did when it was made, and must not do again.
constexpr uint32_t kOnceFlags = O_TRUNC | O_CREAT | O_EXCL | O_TMPFILE | O_NOFOLLOW;

bool worth_another_try(const Status& status) {
  return client::retry_of(status.code()) != client::Retry::kNo;
}

}  // namespace

void ClusterFs::attached(Session& session) {
  session_ = &session;
  if (options_.handover == nullptr) return;
  std::vector<Handover::OpenHandle> left = options_.handover->inherited();
  for (int attempt = 0; !left.empty() && attempt < kTriesMax; ++attempt) {
    Latch latch;
    std::mutex mutex;
    std::vector<Handover::OpenHandle> again;  // guarded by mutex
    for (const auto& handle : left) {
      latch.begin(kAtOnce);
      restore(handle, [&, handle](Status status) {
        if (worth_another_try(status)) {
          std::lock_guard lock(mutex);
          again.push_back(handle);
        } else if (!status.ok()) {
          options_.handover->note_closed(handle.slot);
          std::fprintf(stderr,
                       "fs3 mount: an open file of the process before is gone: inode %llu: %s\n",
                       static_cast<unsigned long long>(handle.inode), status.to_string().c_str());
        }
        latch.end();
      });
    }
    latch.wait();
    left = std::move(again);
  }
  restore_rings();
}

void ClusterFs::restore(const Handover::OpenHandle& handle, Function<void(Status)> done) {
  if (!handle.unsettled) return reopen(handle, std::move(done));
  pb::SyncRequest body;
  body.set_inode(handle.inode);
  body.set_wrote(true);
  body.set_written_end(kAnyLength);  // without a session: as far as storage has bytes
  client_->meta_call(pb::SYNC, Callers::root(), 0, body.SerializeAsString(),
                     [this, handle, done = std::move(done)](Result<std::string> reply) mutable {
                       if (!reply.ok()) return done(reply.status());
                       reopen(handle, std::move(done));
                     });
}

void ClusterFs::reopen(const Handover::OpenHandle& handle, Function<void(Status)> done) {
  pb::OpenRequest body;
  body.set_inode(handle.inode);
  body.set_flags(handle.flags & ~kOnceFlags);
  client_->meta_call(pb::OPEN, Callers::root(), 0, body.SerializeAsString(),
                     [this, handle, done = std::move(done)](Result<std::string> reply) mutable {
                       if (!reply.ok()) return done(reply.status());
                       bool added = add_restored(handle, *reply);
                       done(added ? Status() : Status(EIO, "fuse/takeover", "a malformed reply"));
                     });
}

bool ClusterFs::add_restored(const Handover::OpenHandle& handle, const std::string& raw) {
  pb::OpenReply reply;
  if (!reply.ParseFromString(raw) || reply.attr().inode() != handle.inode) return false;
  auto file = std::make_shared<File>();
  file->inode = handle.inode;
  file->flags = handle.flags;
  file->session = reply.session();
  file->appends_only = (handle.flags & O_APPEND) && (reply.attr().flags() & pb::APPEND_ONLY);
  file->handle = client_->open_handle(raw, handle.flags);
  file->slot = handle.slot;
  file->paged = !(options_.direct_io || (handle.flags & (O_DIRECT | O_APPEND)));
  bool through = handle.flags & (O_DIRECT | O_SYNC | O_DSYNC);
  // The first part of a large append is answered before its rest comes, whatever the flags.
  file->lost = handle.half_append || (handle.unsettled && options_.write_back && !through);
  if (file->handle == nullptr) return false;
  files_.restore(handle.handle, std::move(file));
  return true;
}

bool ClusterFs::is_repeated(const Request& request) const {
  return options_.handover != nullptr && (request.unique() & kUniqueResend) &&
         options_.handover->earlier_call(request.unique()) != nullptr;
}

void ClusterFs::open_again(RequestPtr request, uint64_t inode, uint32_t flags, Raw then) {
  pb::OpenRequest body;
  body.set_inode(inode);
  body.set_flags(flags & ~kOnceFlags);
  client_->meta_call(pb::OPEN, Callers::root(), 0, body.SerializeAsString(),
                     [this, unique = request->unique(), request = std::move(request),
                      then = std::move(then)](Result<std::string> reply) mutable {
                       if (reply.ok()) {
                         then(std::move(request), std::move(reply).value());
                       } else {
                         reply_status(std::move(request), reply.status());
                       }
                       options_.handover->end_earlier_call(unique);
                     });
}

uint32_t ClusterFs::written_before(const File& file) const {
  return options_.handover == nullptr ? 0 : options_.handover->written(file.slot);
}

Status ClusterFs::settled_now(File& file, uint32_t written) {
  if (options_.handover == nullptr) return Status();
  options_.handover->note_settled(file.slot, written);
  if (!file.lost.exchange(false)) return Status();
  return Status(EIO, "fuse/takeover",
                "the process that served this mount was killed before its last writes were stored");
}

void ClusterFs::settle_all() {
  pause_rings();
  Latch latch;
  for (const FilePtr& file : files_.all()) {
    if (!file->writable()) continue;
    latch.begin(kAtOnce);
    uint32_t written = written_before(*file);
    client_->fsync(file->handle, false, [this, &latch, file, written](Status status) {
      // A file that cannot be settled is told of as one of a killed process is.
      if (status.ok()) options_.handover->note_settled(file->slot, written);
      latch.end();
    });
  }
  latch.wait();
}

}  // namespace fs3::fuse
