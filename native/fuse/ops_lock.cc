// Locks: getlk, setlk and setlkw, and what close(2) ends. The metadata service keeps them for the
// whole cluster (fs3/meta/locks.py).
//
// What is written under a lock is seen by whoever gets it next: bytes and length are settled before
// a lock is let go, and the kernel's attributes, hence outdated pages, are dropped with a new one.
//
// A call that comes late must not undo what was answered since: a lock that is let go by a late
// "unlock" belongs to a program that believes to hold it. So a call without an answer is repeated
// under its own name, which happens once (fs3/meta/idempotency.py), until it has one; and a request
// that the kernel sends to the next process is sent on under the name that this one gave it.
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
  body.set_owner(in.lk_flags & FUSE_LK_FLOCK ? in.fh : in.owner);
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
  std::string caller = callers_.of(*request);
  client_->meta_call_as(new_lock_call(), pb::LOCK, std::move(caller), 0, body.SerializeAsString(),
                        [this, request = std::move(request)](Result<std::string> raw) mutable {
                          if (!raw.ok()) return reply_status(std::move(request), raw.status());
                          pb::LockReply reply;
                          if (!reply.ParseFromString(*raw))
                            return reply_error(std::move(request), EIO);
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

client::Client::CallName ClusterFs::new_lock_call() {
  Handover* handover = options_.handover.get();
  return handover == nullptr ? client_->new_call_name() : handover->new_lock_call();
}

ClusterFs::LockCall ClusterFs::begin_lock_call(const Request& request) {
  Handover* handover = options_.handover.get();
  if (handover == nullptr) return {client_->new_call_name(), Handover::kNone};
  const client::Client::CallName* earlier = handover->earlier_call(request.unique());
  client::Client::CallName name = earlier != nullptr ? *earlier : handover->new_lock_call();
  return {name, handover->begin_call(request.unique(), name)};
}

void ClusterFs::end_lock_call(uint32_t record) {
  if (options_.handover != nullptr) options_.handover->end_call(record);
}

void ClusterFs::setlk(RequestPtr request) {
  const auto& in = request->arguments<fuse_lk_in>();
  if (!known_type(in)) return reply_error(std::move(request), EINVAL);
  uint64_t inode = request->node();
  if (in.lk.type == F_WRLCK) {
    return locks_.after_release(
        inode, [this, request = std::move(request)]() mutable { do_setlk(std::move(request)); });
  }
  // Letting go, or only reading from now on.
  // What could not be written is told by the next fsync or close; the lock goes all the same.
  bool unlocks = in.lk.type == F_UNLCK;
  client_->settle(inode, [this, inode, unlocks, change = ChangeMark(nodes_, inode),
                          request = std::move(request)](const Status&) mutable {
    change.end();
    if (unlocks) return do_setlk(std::move(request));
    locks_.after_release(
        inode, [this, request = std::move(request)]() mutable { do_setlk(std::move(request)); });
  });
}

void ClusterFs::do_setlk(RequestPtr request) {
  const auto in = request->arguments<fuse_lk_in>();
  Lock body = describe(*request);
  body.set_action(Lock::SET);
  bool flock = in.lk_flags & FUSE_LK_FLOCK;
  bool waits = request->opcode() == FUSE_SETLKW && in.lk.type != F_UNLCK;
  body.set_wait(waits);
  // The kernel gives no number twice, and keeps that of a request which the next process gets.
  if (waits) body.set_ticket(request->unique() & ~kUniqueResend);
  if (in.lk.type != F_UNLCK && !flock && !locks_.note(request->node(), in.owner, in.fh)) {
    return reply_error(std::move(request), ENOLCK);
  }
  std::string caller = callers_.of(*request);
  LockCall call = begin_lock_call(*request);
  auto wait = std::make_shared<LockWait>(std::move(request), std::move(body), std::move(caller));
  wait->name = std::move(call.name);
  wait->record = call.record;
  size_t waits_max = session_ != nullptr ? session_->waits_max() : SIZE_MAX;
  if (waits && !locks_.begin_wait(wait, waits_max)) {
    reply_error(std::move(wait->request), ENOLCK);
    return end_lock_call(wait->record);
  }
  ask_lock(std::move(wait));
}

void ClusterFs::ask_lock(LockWaitPtr wait) {
  std::string body = wait->body.SerializeAsString();
  client_->meta_call_as(
      wait->name, pb::LOCK, wait->caller, 0, std::move(body),
      [this, wait](Result<std::string> reply) { answered_lock(wait, std::move(reply)); });
}

// The call of the wait has its answer: from here on it is another one.
void ClusterFs::ask_lock_again(LockWaitPtr wait) {
  wait->name = new_lock_call();
  if (options_.handover != nullptr) {
    options_.handover->rename_call(wait->record, wait->name.request_id);
  }
  ask_lock(std::move(wait));
}

// A wait has no end of its own: it goes on while the service says so, and while none answers.
void ClusterFs::answered_lock(LockWaitPtr wait, Result<std::string> raw) {
  bool waits = wait->body.wait();
  pb::LockReply reply;
  if (!raw.ok()) {
    if (waits && raw.status().code() == kTimedOut) return ask_lock(std::move(wait));
    if (waits) locks_.end_wait(wait);
    reply_status(std::move(wait->request), raw.status());
    return end_lock_call(wait->record);
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
      return ask_lock_again(std::move(wait));
    default:
      return end_lock(std::move(wait), EAGAIN);
  }
}

// The service decides: it has granted the lock meanwhile, or never will.
void ClusterFs::cancel_lock(LockWaitPtr wait) {
  Lock body = wait->body;
  body.set_action(Lock::CANCEL);
  body.set_wait(false);
  client_->meta_call_as(new_lock_call(), pb::LOCK, wait->caller, 0, body.SerializeAsString(),
                        [this, wait](Result<std::string> reply) {
                          bool late = !reply.ok() && reply.status().code() == kTimedOut;
                          if (late) return cancel_lock(wait);
                          answered_lock(wait, std::move(reply));
                        });
}

void ClusterFs::interrupted(uint64_t unique) {
  LockWaitPtr wait = locks_.interrupt(unique);
  if (wait == nullptr) return;
  // The call that the service holds is answered by it; this one's own answer says nothing new.
  Lock body = wait->body;
  body.set_action(Lock::CANCEL);
  body.set_wait(false);
  client_->meta_call_as(new_lock_call(), pb::LOCK, wait->caller, 0, body.SerializeAsString(),
                        [](Result<std::string>) {});
}

void ClusterFs::end_lock(LockWaitPtr wait, int error) {
  if (wait->body.wait()) locks_.end_wait(wait);
  reply_error(std::move(wait->request), error);
  end_lock_call(wait->record);
}

void ClusterFs::release_locks(const client::Client::CallName& name, uint64_t inode, uint64_t owner,
                              Lock::Kind kind, Function<void()> then) {
  Lock body;
  body.set_inode(inode);
  body.set_action(Lock::RELEASE);
  body.set_kind(kind);
  body.set_owner(owner);
  body.set_end(INT64_MAX);
  client_->meta_call_as(
      name, pb::LOCK, Callers::root(), 0, body.SerializeAsString(),
      [this, name, inode, owner, kind, then = std::move(then)](Result<std::string> reply) mutable {
        // Locks that nobody can let go any more would stay as long as this mount.
        if (!reply.ok() && reply.status().code() == kTimedOut) {
          return release_locks(name, inode, owner, kind, std::move(then));
        }
        then();
      });
}

void ClusterFs::release_at_flush(RequestPtr request, uint64_t inode, uint64_t owner,
                                 Function<void(RequestPtr)> then) {
  std::optional<LockTable::Ending> ending = locks_.take_owner(inode, owner);
  if (!ending) {
    // The process before had let go of them, and was killed before it answered.
    if (is_repeated(*request)) options_.handover->end_earlier_call(request->unique());
    return then(std::move(request));
  }
  LockCall call = begin_lock_call(*request);
  release_locks(call.name, inode, owner, Lock::POSIX,
                [this, record = call.record, ending = std::move(*ending),
                 request = std::move(request), then = std::move(then)]() mutable {
                  locks_.ended(ending);
                  then(std::move(request));
                  end_lock_call(record);
                });
}

void ClusterFs::release_at_last_close(RequestPtr request, uint64_t inode, uint64_t fh, bool flock,
                                      Function<void(RequestPtr)> then) {
  // Before the answer, so that the next process lets go of what this one did not.
  auto rest = [this, inode, fh, flock, then = std::move(then)](RequestPtr request) mutable {
    if (!flock) return then(std::move(request));
    // No other file ever has this number: a late call does no harm.
    release_locks(new_lock_call(), inode, fh, Lock::FLOCK,
                  [request = std::move(request), then = std::move(then)]() mutable {
                    then(std::move(request));
                  });
  };
  std::vector<LockTable::Ending> owners = locks_.take_handle(inode, fh);
  if (owners.empty()) return rest(std::move(request));
  LockCall call = begin_lock_call(*request);
  end_owners(std::move(request), std::move(owners), std::move(call), std::move(rest));
}

// One after the other: the name of the request belongs to the first. There is hardly ever a second,
// of a process that locked through a handle which it had sent to another one and closed.
void ClusterFs::end_owners(RequestPtr request, std::vector<LockTable::Ending> owners, LockCall call,
                           Function<void(RequestPtr)> then) {
  LockTable::Ending first = std::move(owners.front());
  owners.erase(owners.begin());
  release_locks(call.name, first.inode, first.owner, Lock::POSIX,
                [this, first, record = call.record, owners = std::move(owners),
                 request = std::move(request), then = std::move(then)]() mutable {
                  end_lock_call(record);
                  locks_.ended(first);
                  if (owners.empty()) return then(std::move(request));
                  end_owners(std::move(request), std::move(owners),
                             {new_lock_call(), Handover::kNone}, std::move(then));
                });
}

}  // namespace fs3::fuse
