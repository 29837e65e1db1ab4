// Locks: getlk, setlk and setlkw, and what close(2) ends. The metadata service keeps them for the
// whole cluster (fs3/meta/locks.py).
//
// What is written under a lock is seen by whoever gets it next: bytes and length are settled before
// a lock is let go, and the kernel's attributes, hence outdated pages, are dropped with a new one.
#include <fcntl.h>

#include <cerrno>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

using Lock = pb::LockRequest;

Lock describe(const Request& request) {
  const auto& in = request.arguments<fuse_lk_in>();
  Lock body;
  body.set_inode(request.node());
  body.set_kind(in.lk_flags & FUSE_LK_FLOCK ? Lock::FLOCK : Lock::POSIX);
  body.set_owner(in.owner);
  body.set_type(static_cast<Lock::Type>(in.lk.type));  // the numbers of <fcntl.h>
  body.set_start(in.lk.start);
  body.set_end(in.lk.end);
  body.set_pid(in.lk.pid);
  return body;
}
static_assert(int{Lock::READ} == F_RDLCK && int{Lock::WRITE} == F_WRLCK &&
              int{Lock::UNLOCK} == F_UNLCK);

bool known_type(const fuse_lk_in& in) {
  return in.lk.type == F_RDLCK || in.lk.type == F_WRLCK || in.lk.type == F_UNLCK;
}

}  // namespace

void ClusterFs::getlk(RequestPtr request) {
  if (!known_type(request->arguments<fuse_lk_in>())) {
    return reply_error(std::move(request), EINVAL);
  }
  Lock body = describe(*request);
  body.set_action(Lock::TEST);
  call_for<pb::LockReply>(std::move(request), pb::LOCK, body,
                          [](RequestPtr request, const pb::LockReply& reply) {
                            fuse_lk_out out{};
                            out.lk.type = F_UNLCK;
                            if (reply.state() == pb::LockReply::REFUSED) {
                              out.lk.type = static_cast<uint32_t>(reply.type());
                              out.lk.start = reply.start();
                              out.lk.end = reply.end();
                              // Numbers of another host's processes mean nothing here.
                              out.lk.pid = reply.elsewhere() ? 0 : reply.pid();
                            }
                            reply_value(std::move(request), out);
                          });
}

void ClusterFs::setlk(RequestPtr request) {
  const auto& in = request->arguments<fuse_lk_in>();
  if (!known_type(in)) return reply_error(std::move(request), EINVAL);
  if (in.lk.type == F_WRLCK) return do_setlk(std::move(request));
  // Letting go, or only reading from now on.
  // What could not be written is told by the next fsync or close; the lock goes all the same.
  uint64_t inode = request->node();
  client_->settle(inode, [this, change = ChangeMark(nodes_, inode),
                          request = std::move(request)](const Status&) mutable {
    change.end();
    do_setlk(std::move(request));
  });
}

void ClusterFs::do_setlk(RequestPtr request) {
  const auto in = request->arguments<fuse_lk_in>();
  Lock body = describe(*request);
  body.set_action(Lock::SET);
  bool flock = in.lk_flags & FUSE_LK_FLOCK;
  bool waits = request->opcode() == FUSE_SETLKW && in.lk.type != F_UNLCK;
  body.set_wait(waits);
  if (waits) body.set_ticket(locks_.new_ticket());
  if (in.lk.type != F_UNLCK && !flock) locks_.note(request->node(), in.owner, in.fh);
  std::string caller = callers_.of(*request);
  auto wait = std::make_shared<LockWait>(std::move(request), std::move(body), std::move(caller));
  size_t waits_max = session_ != nullptr ? session_->waits_max() : SIZE_MAX;
  if (waits && !locks_.begin_wait(wait, waits_max)) {
    return reply_error(std::move(wait->request), ENOLCK);
  }
  ask_lock(std::move(wait));
}

void ClusterFs::ask_lock(LockWaitPtr wait) {
  std::string body = wait->body.SerializeAsString();
  client_->meta_call(
      pb::LOCK, wait->caller, 0, std::move(body),
      [this, wait](Result<std::string> reply) { answered_lock(wait, std::move(reply)); });
}

// A wait has no end of its own: it goes on while the service says so, and while none answers.
void ClusterFs::answered_lock(LockWaitPtr wait, Result<std::string> raw) {
  bool waits = wait->body.wait();
  pb::LockReply reply;
  if (!raw.ok()) {
    if (!waits || raw.status().code() != kTimedOut) {
      if (waits) locks_.end_wait(wait);
      return reply_status(std::move(wait->request), raw.status());
    }
    reply.set_state(pb::LockReply::WAITING);
  } else if (!reply.ParseFromString(*raw)) {
    return end_lock(std::move(wait), EIO);
  }
  switch (reply.state()) {
    case pb::LockReply::GRANTED:
      if (session_ != nullptr) (void)session_->invalidate_attributes(wait->body.inode());
      return end_lock(std::move(wait), 0);
    case pb::LockReply::CANCELLED:
      return end_lock(std::move(wait), EINTR);
    case pb::LockReply::WAITING:
      if (!waits) return end_lock(std::move(wait), EIO);
      if (locks_.interrupted(wait)) return cancel_lock(std::move(wait));
      return ask_lock(std::move(wait));
    default:
      return end_lock(std::move(wait), EAGAIN);
  }
}

// The service decides: it has granted the lock meanwhile, or never will.
void ClusterFs::cancel_lock(LockWaitPtr wait) {
  Lock body = wait->body;
  body.set_action(Lock::CANCEL);
  body.set_wait(false);
  client_->meta_call(
      pb::LOCK, wait->caller, 0, body.SerializeAsString(),
      [this, wait](Result<std::string> reply) { answered_lock(wait, std::move(reply)); });
}

void ClusterFs::interrupted(uint64_t unique) {
  LockWaitPtr wait = locks_.interrupt(unique);
  if (wait == nullptr) return;
  // The call that the service holds is answered by it; this one's own answer says nothing new.
  Lock body = wait->body;
  body.set_action(Lock::CANCEL);
  body.set_wait(false);
  client_->meta_call(pb::LOCK, wait->caller, 0, body.SerializeAsString(),
                     [](Result<std::string>) {});
}

void ClusterFs::end_lock(LockWaitPtr wait, int error) {
  if (wait->body.wait()) locks_.end_wait(wait);
  reply_error(std::move(wait->request), error);
}

void ClusterFs::release_locks(uint64_t inode, uint64_t owner, Lock::Kind kind,
                              Function<void()> then) {
  Lock body;
  body.set_inode(inode);
  body.set_action(Lock::RELEASE);
  body.set_kind(kind);
  body.set_owner(owner);
  body.set_end(INT64_MAX);
  client_->meta_call(
      pb::LOCK, Callers::root(), 0, body.SerializeAsString(),
      [this, inode, owner, kind, then = std::move(then)](Result<std::string> reply) mutable {
        // Locks that nobody can let go any more would stay as long as this mount.
        if (!reply.ok() && reply.status().code() == kTimedOut) {
          return release_locks(inode, owner, kind, std::move(then));
        }
        then();
      });
}

void ClusterFs::release_at_flush(uint64_t inode, uint64_t owner, Function<void()> then) {
  if (!locks_.take_owner(inode, owner)) return then();
  release_locks(inode, owner, Lock::POSIX, std::move(then));
}

void ClusterFs::release_at_last_close(uint64_t inode, uint64_t fh, uint64_t flock_owner) {
  for (uint64_t owner : locks_.take_handle(inode, fh)) {
    release_locks(inode, owner, Lock::POSIX, [] {});
  }
  if (flock_owner != 0) release_locks(inode, flock_owner, Lock::FLOCK, [] {});
}

}  // namespace fs3::fuse
