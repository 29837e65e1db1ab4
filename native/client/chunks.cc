#include "client/chunks.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "client/core.h"
#include "common.pb.h"
#include "storage.pb.h"

namespace fs3::client {

namespace {

constexpr uint64_t kTokenLifeMs = 600'000;
// Removals on the wire per job: enough to hide latency, few enough to leave room for reads.
constexpr size_t kRemovalsMax = 32;

uint64_t clock_ms(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

// Mints a server capability from the keyring for each call: an HMAC of 64 bytes. It never outlives
// the lease of this server, so storage refuses what was sent within the lease and arrives long
// after; when the lease is over there is no token, and the call is refused.
class ServerCredential : public Credential {
 public:
  std::string token(const std::shared_ptr<Core>& core, Lane&) override {
    uint64_t now_ms = clock_ms(CLOCK_REALTIME);
    uint64_t until_ms =
        static_cast<uint64_t>(core->server_until_ns.load(std::memory_order_acquire)) / 1'000'000;
    uint64_t boot_ms = clock_ms(CLOCK_BOOTTIME);
    if (boot_ms >= until_ms) return {};
    auth::Capability capability;
    capability.rights = auth::kServer;
    std::memcpy(capability.cluster.data(), core->options.cluster_id.data(),
                std::min(capability.cluster.size(), core->options.cluster_id.size()));
    std::memcpy(capability.client.data(), core->options.client_id.data(), capability.client.size());
    capability.issued_ms = now_ms;
    capability.expiry_ms = now_ms + std::min<uint64_t>(kTokenLifeMs, until_ms - boot_ms);
    return core->keyring->mint(capability);
  }
  void renew(const std::shared_ptr<Core>&, Lane&, Function<void(Status)> done) override {
    done(Status(EACCES, "client/chunks",
                "storage refuses this server's capability: its lease is over, or the keyrings "
                "differ"));
  }
};

using Job = ChunkJob;

Result<Job> make_job(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout) {
  if (!core->keyring) {
    return Status(EACCES, "client/chunks",
                  "needs Options::capability_key, which only servers have");
  }
  proto::Layout parsed;
  if (!parsed.ParseFromString(layout)) {
    return Status(kBadRequest, "client/chunks", "layout: not an fs3.Layout");
  }
  auto placement = Placement::create(parsed);
  if (!placement.ok()) return placement.status();
  Lane* lane = &core->lane();
  return Job{std::move(core), lane, inode, std::move(placement).value(),
             std::make_shared<ServerCredential>()};
}

template <typename Request>
void fill_request(Request& request, const Job& job, uint64_t index, const Route& route) {
  request.set_target_id(route.target);
  request.set_chain_id(route.chain);
  request.set_chain_version(route.version);
  request.mutable_chunk()->set_inode(job.inode);
  request.mutable_chunk()->set_index(index);
}

template <typename Request>
void fill_identity(Request& request, const UpdateIdentity& identity) {
  auto* field = request.mutable_identity();
  field->set_client_id(identity.client_id.data(), identity.client_id.size());
  field->set_channel(identity.channel);
  field->set_sequence(identity.sequence);
}

// One TRUNCATE (length > 0) or REMOVE (length 0) of one chunk. ENOENT means that it is done.
//
// One that is lost and arrives after it was repeated, and after the file has grown again, would cut
// new bytes: as with writes, the channel stays with the chunk until the outcome is known.
void update_chunk(const Job& job, uint64_t index, uint32_t length, Function<void(Status)> done) {
  ChunkId chunk{job.inode, index};
  UpdateIdentity identity = job.core->identities.acquire(chunk);
  ChunkCall call;
  call.method = length > 0 ? proto::storage::TRUNCATE : proto::storage::REMOVE;
  call.placement = job.placement;
  call.chunk_index = index;
  call.to_head = true;
  call.credential = job.credential;
  call.fill = [job, index, length, identity](const Route& route, net::CallSpec& spec) {
    if (length > 0) {
      proto::storage::TruncateRequest request;
      fill_request(request, job, index, route);
      fill_identity(request, identity);
      request.set_length(length);
      request.set_chunk_size(job.placement->chunk_size());
      spec.body = request.SerializeAsString();
    } else {
      proto::storage::RemoveRequest request;
      fill_request(request, job, index, route);
      fill_identity(request, identity);
      spec.body = request.SerializeAsString();
    }
  };
  call.done = [core = job.core, chunk, identity, done = std::move(done)](net::Reply reply) mutable {
    bool gone = reply.status.code() == ENOENT;
    if (reply.status.ok() || gone) {
      core->identities.release(identity.channel);
    } else {
      core->identities.keep(chunk, identity.channel);
    }
    done(gone ? Status() : std::move(reply.status));
  };
  start_chunk_call(job.core, *job.lane, std::move(call));
}

using LastCallback = Function<void(Result<proto::storage::QueryLastReply>)>;

// The highest chunk of the inode on the chain of stripe position `stripe_index`.
void query_last(const Job& job, uint64_t stripe_index, LastCallback done) {
  ChunkCall call;
  call.method = proto::storage::QUERY_LAST;
  call.placement = job.placement;
  call.chunk_index = stripe_index;
  call.credential = job.credential;
  call.fill = [inode = job.inode](const Route& route, net::CallSpec& spec) {
    proto::storage::QueryLastRequest request;
    request.set_target_id(route.target);
    request.set_chain_id(route.chain);
    request.set_chain_version(route.version);
    request.set_inode(inode);
    spec.body = request.SerializeAsString();
  };
  call.done = [done = std::move(done)](net::Reply reply) mutable {
    proto::storage::QueryLastReply parsed;
    if (!reply.status.ok()) return done(reply.status);
    if (!parsed.ParseFromString(reply.body)) {
      return done(Status(EIO, "client/chunks", "QUERY_LAST: the reply does not decode"));
    }
    done(std::move(parsed));
  };
  start_chunk_call(job.core, *job.lane, std::move(call));
}

// Calls `each(position)` for every stripe position and `done` with the first error when all ended.
void for_stripe(const Job& job, Function<void(uint64_t, Function<void(Status)>)> each,
                Function<void(Status)> done) {
  struct Join {
    size_t open;
    Status error;
    Function<void(Status)> done;
  };
  auto join = std::make_shared<Join>(Join{job.placement->stripe(), Status(), std::move(done)});
  for (uint32_t position = 0; position < job.placement->stripe(); ++position) {
    each(position, [join](Status status) {
      if (!status.ok() && join->error.ok()) join->error = std::move(status);
      if (--join->open == 0) join->done(join->error);
    });
  }
}

constexpr uint32_t kRunsMax = 1024;

// Removes the chunks of one stripe position from index `first` on: page by page as storage lists
// them, until a whole pass finds none.
class ChainRemoval : public std::enable_shared_from_this<ChainRemoval> {
 public:
  ChainRemoval(Job job, uint64_t position, uint64_t first, Function<void(Status)> done)
      : job_(std::move(job)), done_(std::move(done)) {
    uint64_t stripe = job_.placement->stripe();
    begin_ = first - first % stripe + position;
    if (begin_ < first) begin_ += stripe;
  }

  void pass() {
    removed_ = 0;
    next_page(begin_);
  }

 private:
  void next_page(uint64_t from) {
    query_runs(job_, from, kRunsMax, [self = shared_from_this()](Result<ChunkRunPage> page) {
      if (!page.ok()) return self->finish(page.status());
      self->page_ = std::move(page).value();
      self->run_ = self->in_run_ = 0;
      self->removing_ = true;
      self->fill_window();
    });
  }

  void fill_window() {
    while (open_ < kRemovalsMax && run_ < page_.runs.size() && error_.ok()) {
      const ChunkRun& run = page_.runs[run_];
      uint64_t index = run.index + in_run_ * job_.placement->stripe();
      if (++in_run_ == run.count) {
        ++run_;
        in_run_ = 0;
      }
      ++open_;
      ++removed_;
      update_chunk(job_, index, 0, [self = shared_from_this()](Status status) {
        self->removed(std::move(status));
      });
    }
    if (open_ > 0) return;
    removing_ = false;
    if (!error_.ok()) return finish(error_);
    if (page_.through != UINT64_MAX) return next_page(aligned(page_.through));
    removed_ > 0 ? pass() : finish(Status());
  }

  // The first index of this position from `index` on.
  uint64_t aligned(uint64_t index) const {
    uint64_t stripe = job_.placement->stripe();
    return index + (stripe - (index - begin_) % stripe) % stripe;
  }

  void removed(Status status) {
    --open_;
    if (!status.ok() && error_.ok()) error_ = std::move(status);
    // Through the queue: a row of calls that end at once must not nest.
    job_.lane->later([self = shared_from_this()] { self->wake(); });
  }

  // Several removals may have posted a wake; the one that ended the page leaves nothing to do.
  void wake() {
    if (removing_) fill_window();
  }

  void finish(Status status) {
    auto done = std::move(done_);
    done(std::move(status));
  }

  const Job job_;
  uint64_t begin_ = 0;  // the first index of the position that is to go
  ChunkRunPage page_;
  size_t run_ = 0;  // the next chunk to remove: its run, and its place in it
  uint64_t in_run_ = 0;
  uint64_t removed_ = 0;  // in this pass
  size_t open_ = 0;
  bool removing_ = false;
  Status error_;
  Function<void(Status)> done_;
};

void remove_from(const Job& job, uint64_t first, Function<void(Status)> done) {
  for_stripe(
      job,
      [job, first](uint64_t position, Function<void(Status)> ended) {
        std::make_shared<ChainRemoval>(job, position, first, std::move(ended))->pass();
      },
      std::move(done));
}

}  // namespace

void query_runs(const ChunkJob& job, uint64_t first, uint32_t runs_max,
                Function<void(Result<ChunkRunPage>)> done) {
  ChunkCall call;
  call.method = proto::storage::QUERY_CHUNKS;
  call.placement = job.placement;
  call.chunk_index = first;
  call.credential = job.credential;
  call.fill = [inode = job.inode, placement = job.placement, first, runs_max](const Route& route,
                                                                              net::CallSpec& spec) {
    proto::storage::QueryChunksRequest request;
    request.set_target_id(route.target);
    request.set_chain_id(route.chain);
    request.set_chain_version(route.version);
    request.set_inode(inode);
    request.set_first(first);
    request.set_step(placement->stripe());
    request.set_chunk_size(placement->chunk_size());
    request.set_limit(runs_max);
    spec.body = request.SerializeAsString();
  };
  call.done = [done = std::move(done)](net::Reply reply) mutable {
    proto::storage::QueryChunksReply parsed;
    if (!reply.status.ok()) return done(reply.status);
    if (!parsed.ParseFromString(reply.body)) {
      return done(Status(EIO, "client/chunks", "QUERY_CHUNKS: the reply does not decode"));
    }
    ChunkRunPage page{{}, parsed.through()};
    for (const auto& run : parsed.runs()) {
      if (run.count() > 0) page.runs.push_back({run.index(), run.count(), run.last_length()});
    }
    done(std::move(page));
  };
  start_chunk_call(job.core, *job.lane, std::move(call));
}

void remove_chunk(const ChunkJob& job, uint64_t index, Function<void(Status)> done) {
  update_chunk(job, index, 0, std::move(done));
}

void truncate_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                     uint64_t old_size, uint64_t new_size, Function<void(Status)> done) {
  auto job = make_job(std::move(core), inode, layout);
  if (!job.ok()) return done(job.status());
  // Growing touches nothing: what storage holds beyond the old size are unsettled writes.
  if (new_size >= old_size) return done(Status());
  uint32_t chunk_size = job->placement->chunk_size();
  auto partial = static_cast<uint32_t>(new_size % chunk_size);
  uint64_t first_whole = (new_size + chunk_size - 1) / chunk_size;
  job->lane->run([job = *job, partial, first_whole, done = std::move(done)]() mutable {
    auto removed = [job, partial, first_whole, done = std::move(done)](Status status) mutable {
      if (!status.ok() || partial == 0) return done(std::move(status));
      update_chunk(job, first_whole - 1, partial, std::move(done));
    };
    remove_from(job, first_whole, std::move(removed));
  });
}

void remove_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                   Function<void(Status)> done) {
  auto job = make_job(std::move(core), inode, layout);
  if (!job.ok()) return done(job.status());
  job->lane->run(
      [job = *job, done = std::move(done)]() mutable { remove_from(job, 0, std::move(done)); });
}

void measure(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
             Function<void(Result<Client::Measure>)> done) {
  auto job = make_job(std::move(core), inode, layout);
  if (!job.ok()) return done(job.status());
  auto sum = std::make_shared<Client::Measure>();
  auto each = [job = *job, sum](uint64_t position, Function<void(Status)> ended) {
    query_last(
        job, position,
        [job, sum, ended = std::move(ended)](Result<proto::storage::QueryLastReply> last) mutable {
          if (!last.ok()) return ended(last.status());
          if (last->found()) {
            uint64_t end = last->index() * job.placement->chunk_size() + last->length();
            sum->length = std::max(sum->length, end);
          }
          sum->stored += last->bytes();
          ended(Status());
        });
  };
  job->lane->run([job = *job, sum, each = std::move(each), done = std::move(done)]() mutable {
    for_stripe(job, std::move(each), [sum, done = std::move(done)](Status status) mutable {
      if (!status.ok()) return done(std::move(status));
      done(*sum);
    });
  });
}

}  // namespace fs3::client
