#include "client/session.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

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

// What SYNC and CLOSE tell the service about the writes of this client.
struct Settlement {
  std::string session;
  uint64_t generation = 0;
  uint64_t written_end = 0;
  bool wrote = false;
  int64_t mtime_ns = 0;
};

// Under any open session: a file may be written through one handle and synced through another that
// only reads. REQUIRES: the file's mutex held.
Settlement settlement(const OpenFile& file, uint64_t generation) {
  Settlement told{{}, generation, file.acked_end, file.unsettled(), file.mtime_ns};
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
  if (told.wrote && told.mtime_ns != 0) request.set_mtime_ns(told.mtime_ns);
  if constexpr (requires { request.set_durable(durable); }) request.set_durable(durable);
  return request.SerializeAsString();
}

// SYNC answers OpenReply, CLOSE AttrReply; the one is the other plus fields.
Status settled(OpenFile& file, const Settlement& told, const Result<std::string>& reply) {
  proto::meta::OpenReply parsed;
  Status status = reply.status();
  if (status.ok() && !parsed.ParseFromString(reply.value())) {
    status = Status(EIO, "client/settle", "the reply of the metadata service does not decode");
  }
  std::vector<std::pair<Lane*, Function<void()>>> waiters;
  {
    std::lock_guard lock(file.mutex);
    if (status.ok()) {
      file.note_settled(told.generation);
      file.adopt(parsed.attr(), now_ns(), told.wrote);
      file.adopt_token(parsed.capability(), now_ns());
      file.adopt_quota(parsed);
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
  send_own_meta_call(core, core->lane(), method, body,
                     [file, told = std::move(told), done = std::move(done)](
                         Result<std::string> reply) mutable { done(settled(*file, told, reply)); });
}

void settle(std::shared_ptr<Core> core, FileHandle handle, uint16_t method, uint64_t generation,
            bool durable, Function<void(Status)> done) {
  const auto& file = handle->file;
  bool close = method == proto::meta::CLOSE;
  Settlement told;
  bool needed;
  {
    std::lock_guard lock(file->mutex);
    told = settlement(*file, generation);
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
                 uint64_t generation, Function<void(Status)> done) {
  Settlement told;
  {
    std::unique_lock lock(file->mutex);
    if (file->settling > 0) {
      file->settle_waiters.emplace_back(&core->lane(),
                                        [core, file, generation, done = std::move(done)]() mutable {
                                          settle_rest(core, file, generation, std::move(done));
                                        });
      return;
    }
    if (generation <= file->settled_generation) {
      lock.unlock();
      return done(Status());
    }
    told = settlement(*file, generation);
    ++file->settling;
  }
  tell(core, file, proto::meta::SYNC, std::move(told), false, std::move(done));
}

uint64_t write_generation(OpenFile& file) {
  std::lock_guard lock(file.mutex);
  return file.write_generation;
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
  Keepalive(std::shared_ptr<Core> core, std::string client_id)
      : core_(std::move(core)), lane_(*core_->lanes()[0]), client_id_(std::move(client_id)) {}

  void arm() {
    if (core_->closed()) return;
    lane_.after(period_ns_, [self = shared_from_this()] { self->tick(); });
  }

 private:
  void tick() {
    if (core_->closed()) return;
    // What another client has is not known here.
    bool own = client_id_ == core_->options.client_id;
    bool any = !own;
    proto::meta::KeepaliveRequest request;
    for (const auto& file : own ? core_->files.all() : std::vector<std::shared_ptr<OpenFile>>()) {
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
    send_meta_call(core_, lane_, proto::meta::KEEPALIVE, with_name(body),
                   now_ns() + core_->options.meta_deadline_ns,
                   [self = shared_from_this()](Result<std::string> reply) {
                     proto::meta::KeepaliveReply parsed;
                     if (reply.ok() && parsed.ParseFromString(*reply)) self->answered(parsed);
                     self->arm();
                   });
  }

  std::string with_name(const std::string& body) {
    Client::CallName name{client_id_, core_->next_request_id()};
    return with_header(name, process_caller(), 0, body).value();
  }

  // One attempt: the next period brings the next one.
  void tell(const std::string& address, const std::string& body) {
    net::CallSpec spec;
    spec.method = proto::meta::KEEPALIVE;
    spec.body = with_name(body);
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
  const std::string client_id_;
  int64_t period_ns_ = kKeepaliveNs;
};

}  // namespace

void fsync_file(std::shared_ptr<Core> core, FileHandle handle, bool durable,
                Function<void(Status)> done) {
  uint64_t generation = write_generation(*handle->file);
  flush_file(core, handle,
             [core, handle, durable, generation, done = std::move(done)](Status flushed) mutable {
               settle(
                   core, handle, proto::meta::SYNC, generation, durable,
                   [flushed = std::move(flushed), done = std::move(done)](Status status) mutable {
                     done(flushed.ok() ? std::move(status) : std::move(flushed));
                   });
             });
}

void close_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done) {
  uint64_t generation = 0;
  bool again;
  {
    std::lock_guard lock(handle->file->mutex);
    again = std::exchange(handle->closed, true);
    generation = handle->file->write_generation;
  }
  if (again) return done(Status(EBADF, "client/close", "the handle is closed already"));
  auto ended = [core, handle, generation, done = std::move(done)](Status flushed) mutable {
    settle(core, handle, proto::meta::CLOSE, generation, false,
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

void settle_file(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
                 Function<void(Status)> done) {
  uint64_t generation = write_generation(*file);
  auto flushed = [core, file, generation, done = std::move(done)](Status status) mutable {
    if (!status.ok() && !refused_for_good(status)) return done(std::move(status));
    settle_rest(core, file, generation, std::move(done));
  };
  flush_all(core, file, std::move(flushed));
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

void start_keepalive(std::shared_ptr<Core> core, std::string client_id) {
  auto keepalive = std::make_shared<Keepalive>(core, std::move(client_id));
  core->lanes()[0]->run([keepalive] { keepalive->arm(); });
}

}  // namespace fs3::client
