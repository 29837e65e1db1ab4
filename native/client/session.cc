#include "client/session.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "client/append.h"
#include "client/core.h"
#include "client/meta.h"
#include "client/writer.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

constexpr int64_t kKeepaliveNs = 3'000'000'000;
constexpr int64_t kKeepaliveMinNs = 500'000'000;
constexpr int64_t kKeepaliveMaxNs = 30'000'000'000;
constexpr size_t kKeepaliveInodesMax = 65'536;
constexpr uint64_t kRootInode = 1;

// What SYNC and CLOSE tell the service about the writes of this client.
struct Settlement {
  std::string session;
  WriteMark mark;
  uint64_t written_end = 0;
  bool wrote = false;
  int64_t mtime_ns = 0;
  bool measure = false;
};

// Under any open session: a file may be written through one handle and synced through another that
// only reads. REQUIRES: the file's mutex held.
Settlement settlement(const OpenFile& file, const WriteMark& mark) {
  Settlement told{{}, mark, file.acked_end, file.unsettled(), file.mtime_ns, file.made_holes};
  for (const Handle* handle : file.handles) {
    if (told.session.empty() && !handle->closed) told.session = handle->session;
  }
  return told;
}

template <typename Request>
std::string encode(const OpenFile& file, const Settlement& told, bool durable) {
  Request request;
  request.set_inode(file.inode);
  request.set_session(told.session);
  request.set_written_end(told.wrote ? told.written_end : 0);
  request.set_wrote(told.wrote);
  request.set_measure(told.wrote && told.measure);
  if (told.wrote && told.mtime_ns != 0) request.set_mtime_ns(told.mtime_ns);
  if constexpr (requires { request.set_durable(durable); }) request.set_durable(durable);
  return request.SerializeAsString();
}

// SYNC answers OpenReply, CLOSE AttrReply; the one is the other plus fields.
Status settled(OpenFile& file, const Settlement& told, bool durable,
               const Result<std::string>& reply) {
  proto::meta::OpenReply parsed;
  Status status = reply.status();
  if (status.ok() && !parsed.ParseFromString(reply.value())) {
    status = Status(EIO, "client/settle", "the reply of the metadata service does not decode");
  }
  std::vector<std::pair<Lane*, Function<void()>>> waiters;
  {
    std::lock_guard lock(file.mutex);
    if (status.ok()) {
      file.note_settled(told.mark);
      file.adopt(parsed.attr(), now_ns());
      file.adopt_token(parsed.capability(), now_ns());
      file.adopt_quota(parsed);
      if (durable) file.durable_size = parsed.attr().size();
    }
    if (told.wrote && --file.settling == 0) waiters.swap(file.settle_waiters);
  }
  for (auto& [lane, go] : waiters) lane->run(std::move(go));
  return status;
}

// Tells the service by SYNC or CLOSE. Without a session (nobody here has the file open for writing
// any more) the service measures what was written.
void tell(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file, uint16_t method,
          Settlement told, bool durable, Function<void(Status)> done) {
  std::string body = method == proto::meta::CLOSE
                         ? encode<proto::meta::CloseRequest>(*file, told, durable)
                         : encode<proto::meta::SyncRequest>(*file, told, durable);
  send_own_meta_call(
      core, core->lane(), method, body,
      [file, told = std::move(told), durable, done = std::move(done)](
          Result<std::string> reply) mutable { done(settled(*file, told, durable, reply)); });
}

void settle(std::shared_ptr<Core> core, FileHandle handle, uint16_t method, const WriteMark& mark,
            bool durable, Function<void(Status)> done) {
  const auto& file = handle->file;
  bool close = method == proto::meta::CLOSE;
  Settlement told;
  bool needed;
  {
    std::lock_guard lock(file->mutex);
    told = settlement(*file, mark);
    if (close || !handle->session.empty()) told.session = handle->session;
    // fsync of a handle that only reads makes durable what others have settled before.
    needed = close ? !told.session.empty() : told.wrote || durable;
    if (needed && told.wrote) ++file->settling;
  }
  if (!needed) return done(Status());
  tell(core, file, method, std::move(told), durable, std::move(done));
}

// After the flush: waits until no other settlement is on its way, then tells what they did not.
void settle_rest(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                 const WriteMark& mark, Function<void(Status)> done) {
  Settlement told;
  {
    std::unique_lock lock(file->mutex);
    if (file->settling > 0) {
      file->settle_waiters.emplace_back(&core->lane(),
                                        [core, file, mark, done = std::move(done)]() mutable {
                                          settle_rest(core, file, mark, std::move(done));
                                        });
      return;
    }
    if (mark.generation <= file->settled_generation) {
      lock.unlock();
      return done(Status());
    }
    told = settlement(*file, mark);
    ++file->settling;
  }
  tell(core, file, proto::meta::SYNC, std::move(told), false, std::move(done));
}

WriteMark current_mark(OpenFile& file) {
  std::lock_guard lock(file.mutex);
  return file.mark();
}

void finish_renewal(OpenFile& file, Right right, const Result<std::string>& reply) {
  proto::meta::OpenReply parsed;
  Status status = reply.status();
  if (status.ok() && !parsed.ParseFromString(reply.value())) {
    status = Status(EIO, "client/renew", "the reply of the metadata service does not decode");
  }
  if (status.ok() && parsed.capability().empty()) {
    status = Status(EACCES, "client/renew", "the metadata service gave no new capability");
  }
  std::vector<std::pair<Lane*, Function<void(Status)>>> waiters;
  {
    std::lock_guard lock(file.mutex);
    if (status.ok()) file.adopt_token(parsed.capability(), now_ns());
    if (status.ok() && right == Right::kWrite) file.adopt_quota(parsed);
    file.renewing[static_cast<int>(right)] = false;
    waiters.swap(file.renewal_waiters[static_cast<int>(right)]);
  }
  for (auto& [lane, done] : waiters) {
    lane->run([done = std::move(done), status]() mutable { done(status); });
  }
}

// The session to renew through; empty when no handle writes. One that is being closed still lives
// until its flush is through, and that may need the renewal. REQUIRES: mutex held.
std::string open_session(const OpenFile& file) {
  std::string closing;
  for (const Handle* handle : file.handles) {
    if (!handle->session.empty() && !handle->closed) return handle->session;
    if (!handle->session.empty()) closing = handle->session;
  }
  return closing;
}

bool session_reads(const OpenFile& file, const std::string& session) {
  for (const Handle* handle : file.handles) {
    if (handle->session == session) return handle->readable();
  }
  return false;
}

// The handles of a session that is gone go on under the one of the reply.
void replace_session(OpenFile& file, const std::string& gone, const Result<std::string>& reply) {
  proto::meta::OpenReply parsed;
  if (!reply.ok() || !parsed.ParseFromString(reply.value())) return;  // finish_renewal says so
  std::lock_guard lock(file.mutex);
  for (Handle* handle : file.handles) {
    if (handle->session == gone) handle->session = parsed.session();
  }
}

void open_again(const std::shared_ptr<Core>& core, Lane& lane, std::shared_ptr<OpenFile> file,
                Right right, std::string gone) {
  proto::meta::OpenRequest request;
  request.set_inode(file->inode);
  request.set_flags(right == Right::kWrite ? O_WRONLY : O_RDONLY);
  {
    std::lock_guard lock(file->mutex);
    if (!gone.empty()) request.set_flags(session_reads(*file, gone) ? O_RDWR : O_WRONLY);
  }
  send_own_meta_call(core, lane, proto::meta::OPEN, request.SerializeAsString(),
                     [file, right, gone = std::move(gone)](Result<std::string> reply) {
                       if (!gone.empty()) replace_session(*file, gone, reply);
                       finish_renewal(*file, right, reply);
                     });
}

bool has_capability(const Result<std::string>& reply) {
  proto::meta::OpenReply parsed;
  return reply.ok() && parsed.ParseFromString(reply.value()) && !parsed.capability().empty();
}

// Alive as long as the client: one message per period to every metadata service, then the next
// timer. Which one collects garbage may change at any time, and it has to know what is read.
class Keepalive : public std::enable_shared_from_this<Keepalive> {
 public:
  explicit Keepalive(std::shared_ptr<Core> core)
      : core_(std::move(core)), lane_(*core_->lanes()[0]) {}

  void arm() {
    if (core_->closed()) return;
    lane_.after(period_ns_, [self = shared_from_this()] { self->tick(); });
  }

 private:
  void tick() {
    if (core_->closed()) return;
    bool any = false;
    proto::meta::KeepaliveRequest request;
    for (const auto& file : core_->files.all()) {
      std::lock_guard lock(file->mutex);
      any |= !file->handles.empty();
      if (held_for_reading(*file) && request.open_inodes_size() < int{kKeepaliveInodesMax}) {
        request.add_open_inodes(file->inode);
      }
    }
    if (!any) return arm();
    std::string body = request.SerializeAsString();
    auto all = meta_addresses(*core_);
    if (all.size() > 1) {
      for (const std::string& address : all) tell(address, body);
    }
    send_own_meta_call(core_, lane_, proto::meta::KEEPALIVE, body,
                       [self = shared_from_this()](Result<std::string> reply) {
                         proto::meta::KeepaliveReply parsed;
                         if (reply.ok() && parsed.ParseFromString(*reply)) self->answered(parsed);
                         self->arm();
                       });
  }

  // One attempt: the next period brings the next one.
  void tell(const std::string& address, const std::string& body) {
    net::CallSpec spec;
    spec.method = proto::meta::KEEPALIVE;
    Client::CallName name{core_->options.client_id, core_->next_request_id()};
    spec.body = with_header(name, process_caller(), 0, body).value();
    spec.deadline_ns = now_ns() + period_ns_;
    lane_.call(address, std::move(spec), [](net::Reply) {});
  }

  void answered(const proto::meta::KeepaliveReply& reply) {
    if (reply.period_ms() > 0) {
      period_ns_ =
          std::clamp(reply.period_ms() * int64_t{1'000'000}, kKeepaliveMinNs, kKeepaliveMaxNs);
    }
    if (reply.routing_version() > core_->routing.snapshot()->version) {
      core_->routing.refresh(core_, lane_, [] {});
    }
  }

  // Open longer than one period; shorter ones are covered by the service's own patience.
  bool held_for_reading(const OpenFile& file) const {
    int64_t before = now_ns() - period_ns_;
    return std::any_of(file.handles.begin(), file.handles.end(), [&](const Handle* handle) {
      return handle->session.empty() && handle->opened_ns < before;
    });
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  int64_t period_ns_ = kKeepaliveNs;
};

// `durable` is asked, with the mutex held, when the bytes are on their chains.
void sync_file(const std::shared_ptr<Core>& core, const FileHandle& handle,
               Function<bool(const OpenFile&)> durable, Function<void(Status)> done) {
  auto placed = [core, handle, durable = std::move(durable), done = std::move(done)]() mutable {
    WriteMark mark = current_mark(*handle->file);
    auto told = [core, handle, durable = std::move(durable), mark,
                 done = std::move(done)](Status flushed) mutable {
      bool wait;
      {
        std::lock_guard lock(handle->file->mutex);
        wait = durable(*handle->file);
      }
      settle(core, handle, proto::meta::SYNC, mark, wait,
             [flushed = std::move(flushed), done = std::move(done)](Status status) mutable {
               done(flushed.ok() ? std::move(status) : std::move(flushed));
             });
    };
    flush_file(core, handle, std::move(told));
  };
  place_appends(core, handle->file, PlaceWhen::kNow, std::move(placed));
}

// What is left of a close when all its bytes have their places.
void close_placed(const std::shared_ptr<Core>& core, const FileHandle& handle,
                  Function<void(Status)> done) {
  WriteMark mark = current_mark(*handle->file);
  auto ended = [core, handle, mark, done = std::move(done)](Status flushed) mutable {
    settle(core, handle, proto::meta::CLOSE, mark, false,
           [handle, flushed = std::move(flushed), done = std::move(done)](Status status) mutable {
             {
               std::lock_guard lock(handle->file->mutex);
               std::erase(handle->file->handles, handle.get());
             }
             done(flushed.ok() ? std::move(status) : std::move(flushed));
           });
  };
  if (!handle->writable()) return ended(Status());
  flush_file(core, handle, std::move(ended));
}

}  // namespace

void fsync_file(std::shared_ptr<Core> core, FileHandle handle, bool durable,
                Function<void(Status)> done) {
  sync_file(core, handle, [durable](const OpenFile&) { return durable; }, std::move(done));
}

void fdatasync_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done) {
  auto length_is_new = [](const OpenFile& file) {
    return !file.durable_size || file.size > *file.durable_size;
  };
  sync_file(core, handle, length_is_new, std::move(done));
}

void close_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done) {
  bool again;
  {
    std::lock_guard lock(handle->file->mutex);
    again = std::exchange(handle->closed, true);
  }
  if (again) return done(Status(EBADF, "client/close", "the handle is closed already"));
  auto placed = [core, handle, done = std::move(done)]() mutable {
    close_placed(core, handle, std::move(done));
  };
  if (!handle->writable()) return placed();
  place_appends(core, handle->file, PlaceWhen::kNow, std::move(placed));
}

void settle_file(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
                 Function<void(Status)> done) {
  place_appends(core, file, PlaceWhen::kNow, [core, file, done = std::move(done)]() mutable {
    WriteMark mark = current_mark(*file);
    auto flushed = [core, file, mark, done = std::move(done)](Status status) mutable {
      if (!status.ok() && !refused_for_good(status)) return done(std::move(status));
      settle_rest(core, file, mark, std::move(done));
    };
    flush_all(core, file, std::move(flushed));
  });
}

void sync_all(std::shared_ptr<Core> core, Function<void(Status)> done) {
  struct Join {
    std::mutex mutex;
    size_t open = 0;  // guarded by mutex, like the error
    Status error;
    Function<void(Status)> done;
  };
  auto join = std::make_shared<Join>();
  join->done = std::move(done);
  auto ended = [core, join](Status status) {
    {
      std::lock_guard lock(join->mutex);
      if (!status.ok() && join->error.ok()) join->error = std::move(status);
      if (--join->open > 0) return;
    }
    // One durable settlement, of whichever inode: the service flushes its whole log.
    proto::meta::SyncRequest request;
    request.set_inode(kRootInode);
    request.set_durable(true);
    send_own_meta_call(core, core->lane(), proto::meta::SYNC, request.SerializeAsString(),
                       [join](const Result<std::string>& reply) {
                         join->done(join->error.ok() ? reply.status() : join->error);
                       });
  };
  auto files = core->files.all();
  join->open = files.size() + 1;
  for (auto& file : files) settle_file(core, std::move(file), ended);
  ended(Status());
}

void renew_capability(const std::shared_ptr<Core>& core, Lane& lane, std::shared_ptr<OpenFile> file,
                      Right right, Function<void(Status)> done) {
  auto index = static_cast<int>(right);
  std::string session;
  {
    std::lock_guard lock(file->mutex);
    file->renewal_waiters[index].emplace_back(&lane, std::move(done));
    if (std::exchange(file->renewing[index], true)) return;
    session = open_session(*file);
    if (right == Right::kRead && !session_reads(*file, session)) session.clear();
  }
  if (!session.empty()) {
    proto::meta::SyncRequest request;
    request.set_inode(file->inode);
    request.set_session(session);
    send_own_meta_call(core, lane, proto::meta::SYNC, request.SerializeAsString(),
                       [core, &lane, file, right, session](Result<std::string> reply) {
                         bool ended = reply.ok() && !has_capability(reply);
                         if (ended) return open_again(core, lane, file, right, session);
                         finish_renewal(*file, right, reply);
                       });
  } else if (right == Right::kRead) {
    open_again(core, lane, std::move(file), right, {});
  } else {
    finish_renewal(
        *file, right,
        Status(EBADF, "client/renew", "no handle of the file is open for writing any more"));
  }
}

void start_keepalive(std::shared_ptr<Core> core) {
  auto keepalive = std::make_shared<Keepalive>(core);
  core->lanes()[0]->run([keepalive] { keepalive->arm(); });
}

}  // namespace fs3::client
