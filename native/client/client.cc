#include "client/client.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "client/append.h"
#include "client/chunks.h"
#include "client/copy.h"
#include "client/core.h"
#include "client/holes.h"
#include "client/meta.h"
#include "client/reader.h"
#include "client/session.h"
#include "client/space.h"
#include "client/writer.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

constexpr size_t kIdBytes = 16;
constexpr size_t kInflightBytesMin = 4u << 20;  // per lane: one largest frame

Status forked_status() {
  return Status(ESHUTDOWN, "client",
                "this client belongs to the parent process; make a new one after fork()");
}

Status check_options(const Options& options) {
  if (options.client_id.size() != kIdBytes) {
    return Status(kBadRequest, "client/create", "client_id: must be 16 random bytes");
  }
  if (!options.cluster_id.empty() && options.cluster_id.size() != kIdBytes) {
    return Status(kBadRequest, "client/create", "cluster_id: must be 16 bytes, or empty");
  }
  if (!options.capability_key.empty() && options.cluster_id.empty()) {
    return Status(kBadRequest, "client/create", "cluster_id: a server has to know it");
  }
  if (options.meta_addresses.empty()) {
    return Status(kBadRequest, "client/create", "meta_addresses: at least one is needed");
  }
  return Status();
}

class ClientImpl : public Client {
 public:
  ClientImpl(std::shared_ptr<Core> core, std::unique_ptr<ReactorThread> own)
      : core_(std::move(core)), own_(std::move(own)) {}

  ~ClientImpl() override {
    if (core_->forked()) {
      // The thread is the parent's; joining it here would wait for ever.
      (void)own_.release();
      (void)new std::shared_ptr<Core>(std::move(core_));
      return;
    }
    shutdown();
  }

  void meta_call(uint16_t method, std::string caller, uint32_t umask, std::string body,
                 MetaCallback done) override {
    meta_call_as(new_call_name(), method, std::move(caller), umask, std::move(body),
                 std::move(done));
  }

  CallName new_call_name() override { return {core_->options.client_id, core_->next_request_id()}; }

  void meta_call_as(const CallName& name, uint16_t method, std::string caller, uint32_t umask,
                    std::string body, MetaCallback done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    auto whole = method == proto::meta::GET_ROUTING ? Result<std::string>(std::move(body))
                                                    : with_header(name, caller, umask, body);
    if (!whole.ok()) return done(whole.status());
    int64_t deadline_ns = now_ns() + core_->options.meta_deadline_ns;
    send_meta_call(core_, core_->lane(), method, std::move(whole).value(), deadline_ns,
                   std::move(done));
  }

  FileHandle open_handle(const std::string& open_reply, uint32_t flags) override {
    proto::meta::OpenReply reply;
    if (!usable().ok() || !reply.ParseFromString(open_reply)) return nullptr;
    auto placement = Placement::create(reply.attr().layout());
    if (!placement.ok()) return nullptr;
    auto file = core_->files.open(reply.attr().inode(), *placement);
    auto handle = std::make_shared<Handle>(file, flags, reply.session());
    std::lock_guard lock(file->mutex);
    file->adopt(reply.attr(), now_ns());
    file->adopt_token(reply.capability(), now_ns());
    if (handle->writable()) file->adopt_quota(reply);
    return handle;
  }

  void read(FileHandle file, uint64_t offset, std::byte* into, size_t length,
            Function<void(Result<size_t>)> done, Holes holes) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    read_file(core_, std::move(file), offset, into, length, holes, std::move(done));
  }

  void write(FileHandle file, uint64_t offset, Buffer data, WriteAt at,
             Function<void(Result<size_t>)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    done = synced(file, std::move(done));
    if (!file->appends() || at != WriteAt::kAsOpened) {
      bool through = at == WriteAt::kThrough || file->through();
      return write_file(core_, std::move(file), offset, std::move(data), through, std::move(done));
    }
    auto appended = [done = std::move(done)](Result<Appended> result) mutable {
      if (!result.ok()) return done(result.status());
      done(result->length);
    };
    AppendName name{new_call_name(), false};
    append_file(core_, file, std::move(data), AppendMode::kBuffered, std::move(name),
                std::move(appended));
  }

  void append(FileHandle file, Buffer data, AppendMode mode, AppendName name,
              Function<void(Result<Appended>)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    if (mode != AppendMode::kMoreFollows) done = synced(file, std::move(done));
    append_file(core_, file, std::move(data), mode, std::move(name), std::move(done));
  }

  void seek(FileHandle file, uint64_t offset, SeekFor what,
            Function<void(Result<uint64_t>)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    seek_file(core_, file, offset, what, std::move(done));
  }

  void fallocate(FileHandle file, uint32_t mode, uint64_t offset, uint64_t length,
                 Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    fallocate_file(core_, file, mode, offset, length, std::move(done));
  }

  void copy_range(FileHandle from, uint64_t from_offset, FileHandle to, uint64_t to_offset,
                  uint64_t length, Function<void(Result<uint64_t>)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    client::copy_range(core_, from, from_offset, to, to_offset, length, std::move(done));
  }

  void sync_all(Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    client::sync_all(core_, std::move(done));
  }

  void flush(FileHandle file, Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    flush_file(core_, std::move(file), std::move(done));
  }

  void fsync(FileHandle file, bool durable, Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    fsync_file(core_, std::move(file), durable, std::move(done));
  }

  void fdatasync(FileHandle file, Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    fdatasync_file(core_, std::move(file), std::move(done));
  }

  void close(FileHandle file, Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    close_file(core_, std::move(file), std::move(done));
  }

  void settle(uint64_t inode, Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    auto file = core_->files.find(inode);
    if (!file) return done(Status());
    settle_file(core_, std::move(file), std::move(done));
  }

  void note_truncated(uint64_t inode, uint64_t size, uint64_t version) override {
    if (!usable().ok()) return;
    auto file = core_->files.find(inode);
    if (!file) return;
    std::lock_guard lock(file->mutex);
    file->note_truncated(size, version);
    count_dirty(*core_, *file);
  }

  bool local_size(uint64_t inode, uint64_t version, uint64_t* size, int64_t* mtime_ns) override {
    if (!usable().ok()) return false;
    auto file = core_->files.find(inode);
    if (!file) return false;
    std::lock_guard lock(file->mutex);
    if (!file->unsettled() && file->attr_version <= version) return false;
    *size = file->size_seen();
    *mtime_ns = file->unsettled() ? file->mtime_ns : file->attr_mtime_ns;
    return true;
  }

  uint64_t unsettled_bytes(uint64_t inode) override {
    if (!usable().ok()) return 0;
    auto file = core_->files.find(inode);
    if (!file) return 0;
    std::lock_guard lock(file->mutex);
    return file->unsettled_bytes();
  }

  Told last_told(const FileHandle& handle) const override {
    const OpenFile& file = *handle->file;
    std::lock_guard lock(handle->file->mutex);
    return {file.attr_version, file.attr_size, file.attr_mtime_ns};
  }

  uint64_t handle_inode(const FileHandle& file) const override { return file->file->inode; }

  void truncate_chunks(uint64_t inode, std::string layout, uint64_t old_size, uint64_t new_size,
                       Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    client::truncate_chunks(core_, inode, layout, old_size, new_size, std::move(done));
  }

  void remove_chunks(uint64_t inode, std::string layout, uint64_t,
                     Function<void(Status)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    client::remove_chunks(core_, inode, layout, std::move(done));
  }

  void measure(uint64_t inode, std::string layout, Function<void(Result<Measure>)> done) override {
    if (Status status = usable(); !status.ok()) return done(std::move(status));
    client::measure(core_, inode, layout, std::move(done));
  }

  void set_server_lease(int64_t until_boottime_ns) override {
    core_->server_until_ns.store(until_boottime_ns, std::memory_order_release);
  }

  void update_routing(std::string_view routing) override {
    // What does not parse or belongs to another cluster changes nothing.
    if (usable().ok()) (void)core_->routing.update(routing, core_->options.cluster_id);
  }
  std::string routing() const override { return core_->routing.snapshot()->serialized; }

  Statistics statistics() const override {
    const Counters& c = core_->counters;
    return {c.meta_calls,  c.meta_retries, c.reads,        c.read_bytes,
            c.writes,      c.write_bytes,  c.data_retries, c.routing_refreshes,
            c.dirty_bytes, c.inflight};
  }

  void shutdown() override {
    if (core_->forked()) return;
    std::lock_guard lock(shutdown_mutex_);
    if (!own_) {
      core_->close([] {});
      return;
    }
    FS3_CHECK(!own_->reactor().on_thread());  // a callback must not end the thread it runs on
    auto drained = std::make_shared<std::promise<void>>();
    if (core_->close([drained] { drained->set_value(); })) drained->get_future().wait();
    own_.reset();
  }

 private:
  // Of a handle with O_SYNC or O_DSYNC a write answers when it is durable, its length included.
  template <typename T>
  Function<void(Result<T>)> synced(const FileHandle& file, Function<void(Result<T>)> done) {
    if (!file->syncs()) return done;
    return [core = core_, file, done = std::move(done)](Result<T> result) mutable {
      if (!result.ok()) return done(result.status());
      auto settled = [result, done = std::move(done)](Status status) mutable {
        if (!status.ok()) return done(std::move(status));
        done(std::move(result));
      };
      fsync_file(core, file, true, std::move(settled));
    };
  }

  Status usable() const {
    if (core_->forked()) return forked_status();
    return core_->closed() ? core_->closed_status() : Status();
  }

  std::shared_ptr<Core> core_;
  std::mutex shutdown_mutex_;  // the second caller waits for the first
  std::unique_ptr<ReactorThread> own_;
};

}  // namespace

Core::Core(Options given, const std::vector<Reactor*>& reactors,
           std::shared_ptr<const auth::Keyring> keys)
    : options(std::move(given)),
      keyring(std::move(keys)),
      identities(options.client_id),
      process_(::getpid()) {
  net::Identity self{options.cluster_id, options.client_id,
                     keyring ? net::Role::kMeta : net::Role::kClient, 0};
  uint64_t seed;
  std::memcpy(&seed, options.client_id.data(), sizeof seed);
  size_t share = std::max(options.max_inflight_bytes / reactors.size(), kInflightBytesMin);
  for (Reactor* reactor : reactors) {
    lanes_.push_back(std::make_unique<Lane>(*reactor, self, share, seed++));
  }
}

Lane& Core::lane() {
  for (const auto& lane : lanes_) {
    if (lane->here()) return *lane;
  }
  return *lanes_[next_lane_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
}

Status Core::closed_status() const { return Status(ESHUTDOWN, "client", "the client is closed"); }

bool Core::forked() const { return ::getpid() != process_; }

bool Core::close(Function<void()> drained) {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return false;
  struct Join {
    std::atomic<size_t> open;
    Function<void()> drained;
  };
  auto join = std::make_shared<Join>();
  join->open = lanes_.size();
  join->drained = std::move(drained);
  for (const auto& lane : lanes_) {
    lane->run([self = shared_from_this(), lane = lane.get(), join] {
      lane->close([join] {
        if (join->open.fetch_sub(1) == 1) join->drained();
      });
    });
  }
  return true;
}

Result<std::shared_ptr<Client>> Client::create(Options options, std::vector<Reactor*> reactors) {
  if (Status status = check_options(options); !status.ok()) return status;
  std::shared_ptr<const auth::Keyring> keyring;
  if (!options.capability_key.empty()) {
    auto parsed = auth::Keyring::parse(options.capability_key);
    if (!parsed.ok()) return parsed.status();
    keyring = std::move(parsed).value();
  }
  std::unique_ptr<ReactorThread> own;
  if (reactors.empty()) {
    auto made = ReactorThread::create("fs3-client");
    if (!made.ok()) return made.status();
    own = std::move(made).value();
    reactors.push_back(&own->reactor());
  }
  auto core = std::make_shared<Core>(std::move(options), reactors, std::move(keyring));
  start_keepalive(core);
  return std::shared_ptr<Client>(std::make_shared<ClientImpl>(std::move(core), std::move(own)));
}

}  // namespace fs3::client
