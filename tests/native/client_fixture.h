// A small cluster for the client's tests: one metadata server and three storage servers on real
// sockets, whose chains are perfect (one map of chunks behind all of them), and which lose, delay
// and refuse what a test tells them to.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "auth/capability.h"
#include "base/crc32c.h"
#include "client/client.h"
#include "common.pb.h"
#include "meta.pb.h"
#include "net/rpc.h"
#include "storage.pb.h"
#include "wire/layout.h"

namespace fs3::client {

namespace pm = proto::meta;
namespace ps = proto::storage;

constexpr uint32_t kChunk = 64u << 10;
constexpr size_t kNodes = 3;
const std::string kClusterId(16, 'c');
const std::string kClientId(16, 'k');
const std::string kOtherId(16, 'o');

// What becomes of one request.
enum class Fault {
  kNone,
  kBusy,       // refused before anything happened
  kDropReply,  // applied, and the answer is lost
  kNever,      // lost: no answer ever
  kDelay,      // answered later, after others
  kDenied,     // capability refused
  kNoSpace,
  kIoError,
  kDuplicateOld,
};

struct Seen {  // one update as it arrived
  uint16_t method;
  size_t node;
  uint64_t chunk;
  uint32_t offset, length, channel;
  uint64_t sequence;
};

struct FakeChunk {
  std::string bytes;
};

class FakeCluster {
 public:
  FakeCluster() {
    for (size_t node = 0; node < kNodes; ++node) start_node(node);
    meta_ = make_server(
        net::Role::kMeta, [this](net::ServerCallPtr call) { serve_meta(std::move(call)); },
        &meta_address_);
    set_serving({0, 1, 2});
  }
  ~FakeCluster() {
    for (auto& server : storage_) server.reset();
    meta_.reset();
    std::lock_guard lock(mutex_);
    swallowed_.clear();
  }

  Options options() const {
    Options options;
    options.meta_addresses = {meta_address_};
    options.client_id = kClientId;
    return options;
  }
  const std::string& meta_address() const { return meta_address_; }

  // Head first; a new chain version.
  void set_serving(std::vector<size_t> nodes) {
    std::lock_guard lock(mutex_);
    serving_ = std::move(nodes);
    ++chain_version_;
    ++routing_version_;
  }
  void stop_node(size_t node) { storage_[node].reset(); }
  void stop_meta() { meta_.reset(); }

  // Asked for every storage request, and every metadata request, in order of arrival.
  void on_storage(std::function<Fault(uint16_t method, size_t node)> decide) {
    std::lock_guard lock(mutex_);
    storage_fault_ = std::move(decide);
  }
  void on_meta(std::function<Fault(uint16_t method)> decide) {
    std::lock_guard lock(mutex_);
    meta_fault_ = std::move(decide);
  }

  std::vector<Seen> updates() {
    std::lock_guard lock(mutex_);
    return updates_;
  }
  size_t applied() {
    std::lock_guard lock(mutex_);
    return applied_;
  }
  size_t reads() {
    std::lock_guard lock(mutex_);
    return reads_;
  }
  size_t meta_calls(uint16_t method) {
    std::lock_guard lock(mutex_);
    return meta_counts_[method];
  }
  std::vector<uint64_t> request_ids() {
    std::lock_guard lock(mutex_);
    return request_ids_;
  }
  std::vector<uint64_t> kept_alive() {
    std::lock_guard lock(mutex_);
    return kept_alive_;
  }
  uint64_t settled_size() {
    std::lock_guard lock(mutex_);
    return size_;
  }
  void set_size(uint64_t size) {
    std::lock_guard lock(mutex_);
    size_ = size;
    ++version_;
  }
  uint64_t version() {
    std::lock_guard lock(mutex_);
    return version_;
  }
  // What GETATTR answers from now on: an answer that was long on its way.
  void answer_attributes(uint64_t size, uint64_t version) {
    std::lock_guard lock(mutex_);
    late_size_ = size;
    late_version_ = version;
  }
  // What somebody else appends: bytes that get their place now.
  uint64_t reserve(uint64_t length) {
    std::lock_guard lock(mutex_);
    return reserve_locked(0, length);
  }
  void set_quota(pm::QuotaState quota) {
    std::lock_guard lock(mutex_);
    quota_ = quota;
  }
  // Settlements that asked for a measure.
  size_t measures() {
    std::lock_guard lock(mutex_);
    return measures_;
  }
  // As after a long silence of the client.
  void end_session(std::string session) {
    std::lock_guard lock(mutex_);
    ended_session_ = std::move(session);
  }
  size_t durable_syncs() {
    std::lock_guard lock(mutex_);
    return durable_syncs_;
  }
  // As SETATTR of the size: the chunks are cut before it answers.
  void truncate(uint64_t size) {
    std::lock_guard lock(mutex_);
    size_ = size;
    append_end_ = 0;
    ++version_;
    std::erase_if(chunks_, [&](const auto& entry) { return entry.first * kChunk >= size; });
    auto partial = chunks_.find(size / kChunk);
    if (partial != chunks_.end() && partial->second.bytes.size() > size % kChunk) {
      partial->second.bytes.resize(size % kChunk);
    }
  }
  std::string chunk(uint64_t index) {
    std::lock_guard lock(mutex_);
    return chunks_.contains(index) ? chunks_[index].bytes : std::string();
  }
  void put_chunk(uint64_t index, std::string bytes) {
    std::lock_guard lock(mutex_);
    chunks_[index].bytes = std::move(bytes);
  }
  size_t queries() {
    std::lock_guard lock(mutex_);
    return queries_;
  }
  size_t chunk_count() {
    std::lock_guard lock(mutex_);
    return chunks_.size();
  }

  static proto::Layout layout(uint32_t stripe = 2) {
    proto::Layout layout;
    layout.set_chain_table(1);
    layout.set_chain_table_version(1);
    layout.set_chunk_size(kChunk);
    layout.set_stripe(stripe);
    layout.set_seed(7);
    return layout;
  }

  // What the metadata service answers to an open for writing (or reading only).
  std::string open_reply(bool writing = true, uint64_t life_ms = 600'000) {
    std::lock_guard lock(mutex_);
    pm::OpenReply reply = open_reply_locked(life_ms);
    if (writing) reply.set_session(std::string(16, 's'));
    return reply.SerializeAsString();
  }

 private:
  uint64_t reserve_locked(uint64_t at_least, uint64_t length) {
    uint64_t offset = std::max({size_, append_end_, at_least});
    append_end_ = offset + length;
    return offset;
  }
  pm::OpenReply open_reply_locked(uint64_t life_ms) {
    pm::OpenReply reply;
    fill_attr(reply.mutable_attr());
    std::string token(auth::kCapabilitySize, '\0');
    token[1] = auth::kRead | auth::kWrite | auth::kTruncate;
    uint64_t expiry = life_ms;
    std::memcpy(token.data() + 40, &expiry, sizeof expiry);
    reply.set_capability(token);
    reply.set_quota(quota_);
    return reply;
  }
  void fill_attr(pm::Attr* attr) {
    attr->set_inode(42);
    attr->set_type(pm::FILE);
    attr->set_size(size_);
    attr->set_version(version_);
    uint64_t stored = 0;
    for (const auto& [index, chunk] : chunks_) stored += chunk.bytes.size();
    attr->set_blocks((stored + 511) / 512);
    *attr->mutable_layout() = layout();
  }

  std::unique_ptr<net::RpcServer> make_server(net::Role role, net::Handler handler,
                                              std::string* address) {
    auto server = std::move(net::RpcServer::create(thread_->reactor(),
                                                   {kClusterId, std::string(16, 'n'), role, 1},
                                                   std::move(handler)))
                      .value();
    *address = server->listen("tcp://127.0.0.1:0").value();
    return server;
  }
  void start_node(size_t node) {
    storage_[node] = make_server(
        net::Role::kStorage,
        [this, node](net::ServerCallPtr call) { serve_storage(node, std::move(call)); },
        &addresses_[node]);
  }

  proto::RoutingInfo routing() {
    proto::RoutingInfo info;
    info.set_version(routing_version_);
    info.set_cluster_id(kClusterId);
    for (size_t node = 0; node < kNodes; ++node) {
      auto* entry = info.add_nodes();
      entry->set_id(static_cast<uint32_t>(node + 1));
      entry->set_role("storage");
      entry->add_addresses("unix:///does/not/exist");
      entry->add_addresses(addresses_[node]);
    }
    auto* table = info.add_tables();
    table->set_id(1);
    table->set_version(1);
    for (uint32_t id = 1; id <= 2; ++id) {
      table->add_chains(id);
      auto* chain = info.add_chains();
      chain->set_id(id);
      chain->set_version(chain_version_);
      for (size_t node : serving_) {
        auto* target = chain->add_targets();
        target->set_target_id(100 * id + node);
        target->set_node_id(static_cast<uint32_t>(node + 1));
        target->set_state(proto::SERVING);
      }
    }
    return info;
  }

  // ---- metadata ----
  void serve_meta(net::ServerCallPtr call) {
    std::unique_lock lock(mutex_);
    uint16_t method = call->method();
    ++meta_counts_[method];
    Fault fault = meta_fault_ ? meta_fault_(method) : Fault::kNone;
    if (fault == Fault::kBusy) return call->reply(Status(kBusy, "meta", "busy"), "");
    if (fault == Fault::kNever) return swallowed_.push_back(std::move(call));
    std::string reply;
    Status status = do_meta(method, std::string(call->body()), &reply);
    if (fault == Fault::kDropReply) return call.reset();
    call->reply(status, reply);
  }

  Status do_meta(uint16_t method, const std::string& body, std::string* reply) {
    if (method == pm::GET_ROUTING) {
      pm::GetRoutingRequest request;
      pm::GetRoutingReply answer;
      EXPECT_TRUE(request.ParseFromString(body));
      if (request.known_version() < routing_version_) *answer.mutable_routing() = routing();
      *reply = answer.SerializeAsString();
      return Status();
    }
    pm::GetAttrRequest any;  // the header is field 1 of every request
    EXPECT_TRUE(any.ParseFromString(body));
    EXPECT_TRUE(any.header().client_id() == kClientId || any.header().client_id() == kOtherId);
    request_ids_.push_back(any.header().request_id());
    if (method == pm::SYNC || method == pm::CLOSE) return settle(method, body, reply);
    if (method == pm::GETATTR) {
      pm::AttrReply answer;
      fill_attr(answer.mutable_attr());
      if (late_version_ != 0) {
        answer.mutable_attr()->set_size(late_size_);
        answer.mutable_attr()->set_version(late_version_);
      }
      *reply = answer.SerializeAsString();
      return Status();
    }
    if (method == pm::APPEND) {
      pm::AppendRequest request;
      pm::AppendReply answer;
      EXPECT_TRUE(request.ParseFromString(body));
      EXPECT_EQ(request.session().size(), 16u);
      // A name is answered once.
      std::string& record = appended_[{any.header().client_id(), any.header().request_id()}];
      if (record.empty()) {
        uint64_t offset = reserve_locked(request.at_least(), request.length());
        answer.set_offset(offset);
        answer.set_end(offset + request.length());
        record = answer.SerializeAsString();
      }
      *reply = record;
      return Status();
    }
    if (method == pm::ALLOCATE) {
      pm::AllocateRequest request;
      pm::AttrReply answer;
      EXPECT_TRUE(request.ParseFromString(body));
      if (!request.keep_size()) size_ = std::max(size_, request.offset() + request.length());
      ++version_;
      fill_attr(answer.mutable_attr());
      *reply = answer.SerializeAsString();
      return Status();
    }
    if (method == pm::OPEN) {
      pm::OpenReply answer = open_reply_locked(600'000);
      answer.set_session(std::string(16, 'n'));
      *reply = answer.SerializeAsString();
      return Status();
    }
    if (method == pm::KEEPALIVE) {
      pm::KeepaliveRequest request;
      EXPECT_TRUE(request.ParseFromString(body));
      kept_alive_.assign(request.open_inodes().begin(), request.open_inodes().end());
      return Status();
    }
    return Status(ENOENT, "meta/lookup", "no such entry");
  }

  Status settle(uint16_t method, const std::string& body, std::string* reply) {
    pm::SyncRequest request;  // CLOSE has the same fields
    EXPECT_TRUE(request.ParseFromString(body));
    EXPECT_TRUE(!request.wrote() || request.session().size() == 16u);
    durable_syncs_ += request.durable();
    measures_ += request.measure();
    if (request.wrote()) {
      size_ = std::max(size_, request.written_end());
      ++version_;
    }
    pm::OpenReply answer = open_reply_locked(600'000);
    if (method == pm::CLOSE || request.session() == ended_session_) answer.clear_capability();
    *reply = answer.SerializeAsString();
    return Status();
  }

  // ---- storage ----
  void serve_storage(size_t node, net::ServerCallPtr call) {
    std::unique_lock lock(mutex_);
    Fault fault = storage_fault_ ? storage_fault_(call->method(), node) : Fault::kNone;
    if (fault == Fault::kDelay) {
      thread_->reactor().after(
          delay_ns(), [this, node, held = std::make_shared<net::ServerCallPtr>(std::move(call))] {
            std::unique_lock again(mutex_);
            answer(node, Fault::kNone, std::move(*held), again);
          });
      return;
    }
    answer(node, fault, std::move(call), lock);
  }
  int64_t delay_ns() { return static_cast<int64_t>(random_() % 3'000'000); }

  void answer(size_t node, Fault fault, net::ServerCallPtr call, std::unique_lock<std::mutex>&) {
    switch (fault) {
      case Fault::kBusy:
        return call->reply(Status(kBusy, "storage", "busy"), "");
      case Fault::kDenied:
        return call->reply(Status(kCapabilityDenied, "storage", "expired"), "");
      case Fault::kNoSpace:
        return call->reply(Status(ENOSPC, "storage", "disk full"), "");
      case Fault::kIoError:
        return call->reply(Status(EIO, "storage", "disk error"), "");
      case Fault::kDuplicateOld:
        return call->reply(Status(kDuplicateOld, "storage", "old sequence"), "");
      case Fault::kNever:
        return swallowed_.push_back(std::move(call));
      default:
        break;
    }
    std::string body;
    Status status;
    switch (call->method()) {
      case ps::READ:
        status = do_read(node, *call, &body);
        break;
      case ps::WRITE:
        status = do_write(node, *call, &body);
        break;
      case ps::TRUNCATE:
        status = do_truncate(node, *call, &body);
        break;
      case ps::REMOVE:
        status = do_remove(node, *call);
        break;
      case ps::QUERY_LAST:
        status = do_query_last(*call, &body);
        break;
      case ps::QUERY_CHUNKS:
        ++queries_;
        status = do_query_chunks(*call, &body);
        break;
      default:
        status = Status(kUnknownMethod, "storage", "?");
    }
    if (fault == Fault::kDropReply) return call.reset();
    call->reply(status, body);
  }

  template <typename Request>
  Status check_route(const Request& request, size_t node, bool head) {
    if (request.chain_version() != chain_version_) {
      return Status(kChainVersionMismatch, "storage", "chain version");
    }
    if (request.target_id() != 100 * request.chain_id() + node) {
      return Status(kUnknownTarget, "storage", "target");
    }
    if (head && serving_.front() != node) return Status(kNotHead, "storage", "not head");
    return Status();
  }

  Status do_read(size_t node, net::ServerCall& call, std::string* body) {
    ps::ReadRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    if (Status status = check_route(request, node, false); !status.ok()) return status;
    ++reads_;
    ps::ReadReply reply;
    auto found = chunks_.find(request.chunk().index());
    std::string bytes = found == chunks_.end() ? "" : found->second.bytes;
    reply.set_chunk_length(static_cast<uint32_t>(bytes.size()));
    bytes = request.offset() < bytes.size() ? bytes.substr(request.offset(), request.length()) : "";
    reply.set_length(static_cast<uint32_t>(bytes.size()));
    if (!bytes.empty()) call.push(Buffer::copy_of(bytes.data(), bytes.size()));
    *body = reply.SerializeAsString();
    return Status();
  }

  // True when the update is new; a repeated one is answered and not applied.
  template <typename Request>
  Status admit(const Request& request, uint16_t method, size_t node, uint32_t offset,
               uint32_t length, bool* fresh) {
    const auto& identity = request.identity();
    EXPECT_TRUE(identity.client_id() == kClientId || identity.client_id() == kOtherId);
    updates_.push_back({method, node, request.chunk().index(), offset, length, identity.channel(),
                        identity.sequence()});
    uint64_t& last = sequences_[{identity.client_id(), request.chain_id(), identity.channel()}];
    if (identity.sequence() < last) return Status(kDuplicateOld, "storage", "old");
    *fresh = identity.sequence() > last;
    last = identity.sequence();
    if (*fresh) ++applied_;
    return Status();
  }

  Status do_write(size_t node, net::ServerCall& call, std::string*) {
    ps::WriteRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    if (Status status = check_route(request, node, true); !status.ok()) return status;
    EXPECT_EQ(call.source_length(), request.length());
    EXPECT_EQ(call.source_checksum(), request.checksum());
    EXPECT_LE(request.offset() + request.length(), request.chunk_size());
    bool fresh = false;
    Status status = admit(request, ps::WRITE, node, request.offset(), request.length(), &fresh);
    if (!status.ok() || !fresh) return status;
    std::string& bytes = chunks_[request.chunk().index()].bytes;
    if (bytes.size() < request.offset() + request.length()) {
      bytes.resize(request.offset() + request.length());
    }
    call.pull(0, request.length(), [&](Result<Buffer> data) {
      ASSERT_TRUE(data.ok());
      std::memcpy(bytes.data() + request.offset(), data->data(), data->size());
    });
    return Status();
  }

  Status do_truncate(size_t node, net::ServerCall& call, std::string*) {
    ps::TruncateRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    if (Status status = check_route(request, node, true); !status.ok()) return status;
    bool fresh = false;
    Status status = admit(request, ps::TRUNCATE, node, 0, request.length(), &fresh);
    auto found = chunks_.find(request.chunk().index());
    if (!status.ok() || !fresh || found == chunks_.end()) return status;
    if (found->second.bytes.size() > request.length()) found->second.bytes.resize(request.length());
    return Status();
  }

  Status do_remove(size_t node, net::ServerCall& call) {
    ps::RemoveRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    if (Status status = check_route(request, node, true); !status.ok()) return status;
    bool fresh = false;
    Status status = admit(request, ps::REMOVE, node, 0, 0, &fresh);
    if (status.ok() && fresh) chunks_.erase(request.chunk().index());
    return status;
  }

  // Chunks of one chain: the stripe has two positions, LAYOUT.md says which chain each is.
  Status do_query_last(net::ServerCall& call, std::string* body) {
    ps::QueryLastRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    ps::QueryLastReply reply;
    for (const auto& [index, chunk] : chunks_) {
      if (chain_of_chunk(index) != request.chain_id()) continue;
      reply.set_found(true);
      reply.set_index(index);
      reply.set_length(static_cast<uint32_t>(chunk.bytes.size()));
      reply.set_chunks(reply.chunks() + 1);
      reply.set_bytes(reply.bytes() + chunk.bytes.size());
    }
    *body = reply.SerializeAsString();
    return Status();
  }
  // One chunk is one run here, so answers are cut where they need not be.
  Status do_query_chunks(net::ServerCall& call, std::string* body) {
    ps::QueryChunksRequest request;
    EXPECT_TRUE(request.ParseFromArray(call.body().data(), static_cast<int>(call.body().size())));
    EXPECT_EQ(request.chunk_size(), kChunk);
    ps::QueryChunksReply reply;
    reply.set_through(UINT64_MAX);
    for (auto at = chunks_.lower_bound(request.first()); at != chunks_.end(); ++at) {
      if ((at->first - request.first()) % request.step() != 0 || at->second.bytes.empty()) continue;
      if (reply.runs_size() == static_cast<int>(std::min(request.limit(), runs_max_))) {
        reply.set_through(at->first);
        break;
      }
      auto* run = reply.add_runs();
      run->set_index(at->first);
      run->set_count(1);
      run->set_last_length(static_cast<uint32_t>(at->second.bytes.size()));
    }
    *body = reply.SerializeAsString();
    return Status();
  }
  static uint32_t chain_of_chunk(uint64_t index) {
    const uint32_t chains[] = {1, 2};
    return chains[wire::pick(layout().seed(), 2, static_cast<uint32_t>(index % 2))];
  }

  std::unique_ptr<ReactorThread> thread_ = std::move(ReactorThread::create("cluster")).value();
  std::unique_ptr<net::RpcServer> storage_[kNodes];
  std::unique_ptr<net::RpcServer> meta_;
  std::string addresses_[kNodes];
  std::string meta_address_;

  std::mutex mutex_;
  std::mt19937_64 random_{1};
  std::vector<size_t> serving_;
  uint32_t chain_version_ = 0;
  uint64_t routing_version_ = 0;
  std::function<Fault(uint16_t, size_t)> storage_fault_;
  std::function<Fault(uint16_t)> meta_fault_;
  std::map<uint64_t, FakeChunk> chunks_;
  // By client, chain and channel.
  std::map<std::tuple<std::string, uint32_t, uint32_t>, uint64_t> sequences_;
  std::vector<Seen> updates_;
  size_t applied_ = 0, reads_ = 0;
  std::map<uint16_t, size_t> meta_counts_;
  std::vector<uint64_t> request_ids_, kept_alive_;
  uint64_t size_ = 0, version_ = 1;
  uint64_t late_size_ = 0, late_version_ = 0;  // 0: GETATTR tells the truth
  size_t durable_syncs_ = 0;
  size_t measures_ = 0, queries_ = 0;
  uint32_t runs_max_ = 3;
  uint64_t append_end_ = 0;
  pm::QuotaState quota_ = pm::QUOTA_FREE;
  std::map<std::pair<std::string, uint64_t>, std::string> appended_;  // by name: the reply
  std::string ended_session_ = "none";
  std::vector<net::ServerCallPtr> swallowed_;
};

}  // namespace fs3::client
