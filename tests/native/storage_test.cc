// One storage server over a real socket and a real disk directory: each method, bad requests,
// capability refusals, restart.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>

#include "base/crc32c.h"
#include "common.pb.h"
#include "net/rpc.h"
#include "storage.pb.h"
#include "storage/codec.h"
#include "storage/server.h"

namespace fs3::storage {
namespace {

namespace pb = proto::storage;

const std::string kCluster(16, 'k');
const std::string kClientId(16, 'c');
const std::string kServerId(16, 's');
constexpr uint64_t kInode = 5;
constexpr uint64_t kTarget = 11;
constexpr uint32_t kChain = 1;
constexpr uint32_t kNode = 1;
constexpr uint32_t kChunkSize = 1 << 20;

uint64_t wall_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

std::string pattern(size_t size, uint32_t seed) {
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    seed = seed * 1664525u + 1013904223u;
    out[i] = static_cast<char>(seed >> 24);
  }
  return out;
}

uint32_t crc(const std::string& bytes) { return crc32c(0, bytes.data(), bytes.size()); }

struct Answer {
  Status status;
  std::string body;
  std::string bytes;
};

// A peer with an identity of its own, and blocking calls.
class Peer {
 public:
  Peer(const std::string& address, std::string instance_id, net::Role role)
      : thread_(std::move(*ReactorThread::create("test-peer"))) {
    net::Identity self{kCluster, std::move(instance_id), role,
                       role == net::Role::kClient ? 0u : 9u};
    std::promise<void> made;
    thread_->reactor().post([&] {
      channel_ = *net::Channel::create(thread_->reactor(), address, self);
      made.set_value();
    });
    made.get_future().get();
  }
  ~Peer() {
    std::promise<void> gone;
    thread_->reactor().post([&] {
      channel_.reset();
      gone.set_value();
    });
    gone.get_future().get();
  }

  Answer call(uint16_t method, std::string body, std::string token, std::string source = {},
              size_t sink_size = 0) {
    std::string sink(sink_size, '\0');
    net::CallSpec spec;
    spec.method = method;
    spec.body = std::move(body);
    spec.capability = std::move(token);
    if (!source.empty()) spec.source.push_back({region_of(source), 0, source.size()});
    if (!sink.empty()) spec.sink.push_back({region_of(sink), 0, sink.size()});
    std::promise<net::Reply> promise;
    channel_->call(std::move(spec), [&](net::Reply reply) { promise.set_value(std::move(reply)); });
    net::Reply reply = promise.get_future().get();
    sink.resize(reply.status.ok() ? reply.sink_length : 0);
    return {reply.status, reply.body, sink};
  }

 private:
  static net::Region region_of(std::string& bytes) {
    return net::Channel::register_memory(bytes.data(), bytes.size());
  }

  std::unique_ptr<ReactorThread> thread_;
  std::shared_ptr<net::Channel> channel_;
};

class StorageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/fs3-storage-test-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    keyring_ = *auth::Keyring::create({{1, std::string(32, 'x')}});
    open();
  }
  void TearDown() override {
    client_.reset();
    predecessor_.reset();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void open() {
    client_.reset();
    predecessor_.reset();
    server_.reset();
    ServerOptions options;
    options.directory = directory_ + "/disk";
    options.cluster_id = kCluster;
    options.node_id = kNode;
    options.incarnation = kServerId;
    options.keyring = keyring_;
    options.addresses = {"tcp://127.0.0.1:0"};
    options.capacity_bytes = 4ull << 30;
    auto server = StorageServer::create(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status().to_string();
    server_ = std::move(*server);
    client_ = std::make_unique<Peer>(server_->addresses()[0], kClientId, net::Role::kClient);
    predecessor_ = std::make_unique<Peer>(server_->addresses()[0], kServerId, net::Role::kStorage);
  }

  // Chain 1 at `chain_version`: this server's target, after a predecessor (target 21 of node 2)
  // when `tail`.
  Status route(uint64_t version, uint32_t chain_version, proto::TargetState state,
               bool tail = false) {
    proto::RoutingInfo info;
    info.set_version(version);
    info.set_cluster_id(kCluster);
    auto* chain = info.add_chains();
    chain->set_id(kChain);
    chain->set_version(chain_version);
    if (tail) {
      auto* head = chain->add_targets();
      head->set_target_id(21);
      head->set_node_id(2);
      head->set_state(proto::SERVING);
    }
    auto* target = chain->add_targets();
    target->set_target_id(kTarget);
    target->set_node_id(kNode);
    target->set_state(state);
    return server_->update_routing(info.SerializeAsString());
  }

  void lease() { server_->renew_lease(now_ns() + 60'000'000'000); }

  // A chain of this one target, serving under chain version 2.
  void serve() {
    ASSERT_TRUE(route(1, 1, proto::OFFLINE).ok());
    ASSERT_TRUE(route(2, 2, proto::SERVING).ok());
    lease();
  }

  std::string token(uint8_t rights, uint64_t inode, const std::string& client) {
    auth::Capability capability;
    capability.rights = rights;
    std::memcpy(capability.cluster.data(), kCluster.data(), 4);
    capability.inode = inode;
    std::memcpy(capability.client.data(), client.data(), 16);
    capability.issued_ms = wall_ms();
    capability.expiry_ms = wall_ms() + 600'000;
    return keyring_->mint(capability);
  }
  std::string client_token(uint8_t rights = auth::kRead | auth::kWrite) {
    return token(rights, kInode, kClientId);
  }
  std::string server_token() { return token(auth::kServer, 0, kServerId); }

  pb::WriteRequest write_request(uint64_t index, uint32_t offset, const std::string& bytes) {
    pb::WriteRequest request;
    request.set_target_id(kTarget);
    request.set_chain_id(kChain);
    request.set_chain_version(2);
    request.mutable_chunk()->set_inode(kInode);
    request.mutable_chunk()->set_index(index);
    request.set_offset(offset);
    request.set_length(static_cast<uint32_t>(bytes.size()));
    request.set_chunk_size(kChunkSize);
    request.set_checksum(crc(bytes));
    request.mutable_identity()->set_client_id(kClientId);
    request.mutable_identity()->set_channel(1);
    request.mutable_identity()->set_sequence(++sequence_);
    return request;
  }
  Answer write(const pb::WriteRequest& request, const std::string& bytes) {
    return client_->call(pb::WRITE, request.SerializeAsString(), client_token(), bytes);
  }
  Answer write(uint64_t index, uint32_t offset, const std::string& bytes) {
    return write(write_request(index, offset, bytes), bytes);
  }

  pb::ReadRequest read_request(uint64_t index, uint32_t offset, uint32_t length) {
    pb::ReadRequest request;
    request.set_target_id(kTarget);
    request.set_chain_id(kChain);
    request.set_chain_version(2);
    request.mutable_chunk()->set_inode(kInode);
    request.mutable_chunk()->set_index(index);
    request.set_offset(offset);
    request.set_length(length);
    return request;
  }
  Answer read(uint64_t index, uint32_t offset, uint32_t length) {
    return client_->call(pb::READ, read_request(index, offset, length).SerializeAsString(),
                         client_token(), {}, length);
  }

  std::string directory_;
  std::shared_ptr<const auth::Keyring> keyring_;
  std::unique_ptr<StorageServer> server_;
  std::unique_ptr<Peer> client_;
  std::unique_ptr<Peer> predecessor_;
  uint64_t sequence_ = 0;
};

#define ASSERT_OK(answer) ASSERT_TRUE((answer).status.ok()) << (answer).status.to_string()
#define EXPECT_CODE(answer, wanted) \
  EXPECT_EQ((answer).status.code(), static_cast<uint32_t>(wanted)) << (answer).status.to_string()

// ---- client methods

TEST_F(StorageTest, WriteThenRead) {
  serve();
  std::string bytes = pattern(100'000, 1);
  auto written = write(0, 500, bytes);
  ASSERT_OK(written);
  pb::UpdateReply update;
  ASSERT_TRUE(update.ParseFromString(written.body));
  EXPECT_EQ(update.chunk_length(), 100'500u);
  EXPECT_EQ(update.checksum(), crc(std::string(500, '\0') + bytes));

  auto got = read(0, 0, 200'000);
  ASSERT_OK(got);
  EXPECT_EQ(got.bytes, std::string(500, '\0') + bytes);
  pb::ReadReply reply;
  ASSERT_TRUE(reply.ParseFromString(got.body));
  EXPECT_EQ(reply.length(), 100'500u);
  EXPECT_EQ(reply.chunk_length(), 100'500u);
  EXPECT_EQ(reply.version(), update.version());
  EXPECT_EQ(read(0, 600, 1000).bytes, bytes.substr(100, 1000));
}

TEST_F(StorageTest, AbsentChunkReadsEmpty) {
  serve();
  auto got = read(77, 0, 4096);
  ASSERT_OK(got);
  EXPECT_TRUE(got.bytes.empty());
}

TEST_F(StorageTest, RetriedWriteIsAppliedOnce) {
  serve();
  std::string first = pattern(4096, 1), second = pattern(4096, 2);
  auto request = write_request(0, 0, first);
  auto before = write(request, first);
  ASSERT_OK(before);
  auto again = write(request, first);
  ASSERT_OK(again);
  EXPECT_EQ(before.body, again.body);
  ASSERT_OK(write(0, 0, second));
  EXPECT_CODE(write(request, first), kDuplicateOld);
  EXPECT_EQ(read(0, 0, 4096).bytes, second);
}

TEST_F(StorageTest, TruncateRemoveQueryLast) {
  serve();
  std::string bytes = pattern(10'000, 3);
  ASSERT_OK(write(0, 0, bytes));
  ASSERT_OK(write(4, 0, bytes));

  auto query = [&] {
    pb::QueryLastRequest request;
    request.set_target_id(kTarget);
    request.set_chain_id(kChain);
    request.set_chain_version(2);
    request.set_inode(kInode);
    auto answer = predecessor_->call(pb::QUERY_LAST, request.SerializeAsString(), server_token());
    EXPECT_TRUE(answer.status.ok()) << answer.status.to_string();
    pb::QueryLastReply reply;
    EXPECT_TRUE(reply.ParseFromString(answer.body));
    return reply;
  };
  EXPECT_EQ(query().index(), 4u);
  EXPECT_EQ(query().length(), 10'000u);
  EXPECT_EQ(query().chunks(), 2u);

  pb::TruncateRequest cut;
  cut.set_target_id(kTarget);
  cut.set_chain_id(kChain);
  cut.set_chain_version(2);
  *cut.mutable_chunk() = write_request(4, 0, bytes).chunk();
  cut.set_length(123);
  cut.set_chunk_size(kChunkSize);
  *cut.mutable_identity() = write_request(4, 0, bytes).identity();
  EXPECT_CODE(client_->call(pb::TRUNCATE, cut.SerializeAsString(), client_token()),
              kCapabilityDenied);
  ASSERT_OK(predecessor_->call(pb::TRUNCATE, cut.SerializeAsString(), server_token()));
  EXPECT_EQ(read(4, 0, 4096).bytes, bytes.substr(0, 123));
  EXPECT_EQ(query().length(), 123u);

  pb::RemoveRequest remove;
  remove.set_target_id(kTarget);
  remove.set_chain_id(kChain);
  remove.set_chain_version(2);
  *remove.mutable_chunk() = cut.chunk();
  *remove.mutable_identity() = write_request(4, 0, bytes).identity();
  ASSERT_OK(predecessor_->call(pb::REMOVE, remove.SerializeAsString(), server_token()));
  EXPECT_TRUE(read(4, 0, 4096).bytes.empty());
  EXPECT_EQ(query().index(), 0u);
  EXPECT_EQ(query().chunks(), 1u);
}

TEST_F(StorageTest, SurvivesRestart) {
  serve();
  std::string bytes = pattern(300'000, 4);
  auto request = write_request(0, 0, bytes);
  auto before = write(request, bytes);
  ASSERT_OK(before);
  open();
  ASSERT_EQ(server_->target_reports().size(), 1u);
  EXPECT_EQ(server_->target_reports()[0].chain_version, 0u);
  ASSERT_TRUE(route(3, 3, proto::LASTSRV).ok());
  ASSERT_TRUE(route(4, 4, proto::SERVING).ok());
  lease();
  auto again = read_request(0, 0, 300'000);
  again.set_chain_version(4);
  auto got = client_->call(pb::READ, again.SerializeAsString(), client_token(), {}, 300'000);
  ASSERT_OK(got);
  EXPECT_EQ(got.bytes, bytes);
  request.set_chain_version(4);
  auto retried = write(request, bytes);
  ASSERT_OK(retried);
  EXPECT_EQ(retried.body, before.body);
}

// ---- who may answer

TEST_F(StorageTest, NothingServesWithoutRoutingOrLease) {
  EXPECT_CODE(read(0, 0, 4096), kUnknownTarget);
  ASSERT_TRUE(route(1, 1, proto::OFFLINE).ok());
  lease();
  auto request = read_request(0, 0, 4096);
  request.set_chain_version(1);
  EXPECT_CODE(client_->call(pb::READ, request.SerializeAsString(), client_token(), {}, 4096),
              kNotServing);
}

TEST_F(StorageTest, NothingIsReadWithoutLease) {
  ASSERT_TRUE(route(1, 1, proto::OFFLINE).ok());
  ASSERT_TRUE(route(2, 2, proto::SERVING).ok());
  EXPECT_CODE(read(0, 0, 4096), kLeaseExpired);
  pb::QueryLastRequest query;
  query.set_target_id(kTarget);
  query.set_chain_id(kChain);
  query.set_chain_version(2);
  query.set_inode(kInode);
  EXPECT_CODE(predecessor_->call(pb::QUERY_LAST, query.SerializeAsString(), server_token()),
              kLeaseExpired);
  lease();
  EXPECT_CODE(read(0, 0, 4096), kOk);
}

TEST_F(StorageTest, WrongDestinationIsRefused) {
  serve();
  auto request = read_request(0, 0, 4096);
  auto send = [&] {
    return client_->call(pb::READ, request.SerializeAsString(), client_token(), {}, 4096);
  };
  request.set_chain_version(1);
  EXPECT_CODE(send(), kChainVersionMismatch);
  request.set_chain_version(3);
  EXPECT_CODE(send(), kChainVersionMismatch);
  request.set_chain_version(2);
  request.set_chain_id(9);
  EXPECT_CODE(send(), kBadRequest);
  request.set_target_id(99);
  EXPECT_CODE(send(), kUnknownTarget);
  EXPECT_CODE(client_->call(0x02ff, "", client_token()), kUnknownMethod);
}

TEST_F(StorageTest, TargetThatShouldHoldDataIsNotMadeUp) {
  ASSERT_TRUE(route(1, 5, proto::SERVING).ok());
  EXPECT_TRUE(server_->target_reports().empty());
  auto warnings = server_->take_warnings();
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("was the disk replaced?"), std::string::npos);
  ASSERT_TRUE(route(2, 6, proto::OFFLINE).ok());
  ASSERT_EQ(server_->target_reports().size(), 1u);
  EXPECT_EQ(server_->target_reports()[0].chain_version, 6u);
  EXPECT_EQ(server_->target_reports()[0].used_bytes, 0u);
}

TEST_F(StorageTest, RoutingOfAnotherClusterIsRefused) {
  proto::RoutingInfo info;
  info.set_version(1);
  info.set_cluster_id(std::string(16, 'z'));
  EXPECT_EQ(server_->update_routing(info.SerializeAsString()).code(), kWrongCluster);
}

TEST_F(StorageTest, OlderRoutingIsIgnored) {
  serve();
  ASSERT_TRUE(route(1, 1, proto::OFFLINE).ok());
  EXPECT_EQ(server_->target_reports()[0].chain_version, 2u);
  EXPECT_CODE(read(0, 0, 4096), kOk);
}

// ---- neighbours

TEST_F(StorageTest, AServerOfACommonChainThatDoesNotAnswerIsTold) {
  serve();
  ServerOptions options;
  options.directory = directory_ + "/other";
  options.cluster_id = kCluster;
  options.node_id = 3;
  options.incarnation = std::string(16, 'o');
  options.keyring = keyring_;
  options.addresses = {"tcp://127.0.0.1:0"};
  auto other = StorageServer::create(std::move(options));
  ASSERT_TRUE(other.ok()) << other.status().to_string();

  // Node 2 cannot be reached, node 3 answers, node 4 has no chain in common with this server.
  proto::RoutingInfo info;
  info.set_version(9);
  info.set_cluster_id(kCluster);
  auto* chain = info.add_chains();
  chain->set_id(kChain);
  chain->set_version(9);
  for (uint32_t node_id : {kNode, 2u, 3u}) {
    auto* target = chain->add_targets();
    target->set_target_id(node_id == kNode ? kTarget : 20 + node_id);
    target->set_node_id(node_id);
    target->set_state(proto::SERVING);
  }
  for (uint32_t node_id : {2u, 3u, 4u}) {
    auto* node = info.add_nodes();
    node->set_id(node_id);
    node->set_role("storage");
    node->add_addresses(node_id == 3 ? (*other)->addresses()[0] : "tcp://127.0.0.1:1");
  }
  ASSERT_OK(Answer{server_->update_routing(info.SerializeAsString())});
  EXPECT_TRUE(server_->silences().empty());
  std::vector<Silence> silences;
  for (int i = 0; i < 3000 && silences.empty(); ++i) {
    usleep(10'000);
    silences = server_->silences();
  }
  ASSERT_EQ(silences.size(), 1u);
  EXPECT_EQ(silences[0].node_id, 2u);
  EXPECT_GE(silences[0].silent_s, 1.0);
  EXPECT_GT((*other)->statistics().network.requests, 0u);
}

TEST_F(StorageTest, EverybodyMayAskWhetherItIsThere) { ASSERT_OK(client_->call(pb::PING, "", "")); }

// ---- capabilities

TEST_F(StorageTest, CapabilityIsNeeded) {
  serve();
  std::string bytes = pattern(4096, 5);
  auto body = write_request(0, 0, bytes).SerializeAsString();
  auto with = [&](std::string token) {
    return client_->call(pb::WRITE, body, std::move(token), bytes);
  };
  EXPECT_CODE(with(""), kCapabilityDenied);
  EXPECT_CODE(with(client_token(auth::kRead)), kCapabilityDenied);
  EXPECT_CODE(with(token(auth::kWrite, kInode + 1, kClientId)), kCapabilityDenied);
  EXPECT_CODE(with(token(auth::kWrite, kInode, std::string(16, 'd'))), kCapabilityDenied);
  auto forged = client_token();
  forged[70] ^= 1;
  EXPECT_CODE(with(forged), kCapabilityDenied);
  auto widened = client_token(auth::kRead);
  widened[1] = static_cast<char>(auth::kRead | auth::kWrite);
  EXPECT_CODE(with(widened), kCapabilityDenied);
  EXPECT_TRUE(read(0, 0, 4096).bytes.empty());
  EXPECT_EQ(server_->statistics().metrics.denied, 6u);
  EXPECT_FALSE(server_->take_warnings().empty());
  ASSERT_OK(with(client_token()));
  auto request = read_request(0, 0, 4096).SerializeAsString();
  EXPECT_CODE(client_->call(pb::READ, request, client_token(auth::kWrite), {}, 4096),
              kCapabilityDenied);
}

TEST_F(StorageTest, ServerMethodsNeedTheServerRight) {
  serve();
  for (uint16_t method : {pb::FORWARD, pb::SYNC_START, pb::SYNC_DONE, pb::DUMP, pb::READ_RAW,
                          pb::SPACE, pb::QUERY_LAST, pb::TRUNCATE}) {
    pb::DumpRequest dump;
    dump.set_target_id(kTarget);
    dump.set_limit(10);
    std::string body = dump.SerializeAsString();
    if (method == pb::FORWARD) {
      craq::Forward effect;
      effect.to.target = kTarget;
      effect.chunk = {kInode, 0};
      effect.kind = UpdateKind::kRemove;
      effect.version = 1;
      body = encode_forward(effect, kChain, 21, 0);
    } else if (method == pb::SYNC_START || method == pb::SYNC_DONE) {
      pb::SyncDoneRequest request;
      request.set_target_id(kTarget);
      request.set_chain_id(kChain);
      body = request.SerializeAsString();
    } else if (method == pb::READ_RAW) {
      pb::ReadRawRequest request;
      request.set_target_id(kTarget);
      request.mutable_chunk()->set_inode(kInode);
      request.set_length(10);
      body = request.SerializeAsString();
    } else if (method == pb::QUERY_LAST) {
      pb::QueryLastRequest request;
      request.set_inode(kInode);
      body = request.SerializeAsString();
    } else if (method == pb::TRUNCATE) {
      pb::TruncateRequest request;
      request.mutable_chunk()->set_inode(kInode);
      request.set_chunk_size(kChunkSize);
      *request.mutable_identity() = write_request(0, 0, "").identity();
      body = request.SerializeAsString();
    }
    uint8_t all_but_server = auth::kRead | auth::kWrite | auth::kTruncate;
    EXPECT_CODE(client_->call(method, body, client_token(all_but_server), {}, 64),
                kCapabilityDenied)
        << method;
  }
}

TEST_F(StorageTest, WhoMayWriteMayPunchHolesAndAskForThem) {
  serve();
  for (uint64_t index : {1, 3, 5, 9}) ASSERT_OK(write(index, 0, pattern(kChunkSize, index)));
  ASSERT_OK(write(11, 0, "short"));
  ASSERT_OK(write(4, 0, "another stripe position"));
  auto query = [&](uint64_t first, uint32_t limit, uint8_t rights) {
    pb::QueryChunksRequest request;
    request.set_target_id(kTarget);
    request.set_chain_id(kChain);
    request.set_chain_version(2);
    request.set_inode(kInode);
    request.set_first(first);
    request.set_step(2);
    request.set_chunk_size(kChunkSize);
    request.set_limit(limit);
    auto answer =
        client_->call(pb::QUERY_CHUNKS, request.SerializeAsString(), client_token(rights));
    EXPECT_TRUE(answer.status.ok()) << answer.status.to_string();
    pb::QueryChunksReply reply;
    EXPECT_TRUE(reply.ParseFromString(answer.body));
    std::string text;
    for (const auto& run : reply.runs()) {
      text += std::to_string(run.index()) + "+" + std::to_string(run.count()) + "/" +
              std::to_string(run.last_length()) + " ";
    }
    return text + (reply.through() == UINT64_MAX ? "end" : std::to_string(reply.through()));
  };
  std::string whole = std::to_string(kChunkSize);
  EXPECT_EQ(query(1, 10, auth::kRead), "1+3/" + whole + " 9+2/5 end");
  EXPECT_EQ(query(1, 1, auth::kWrite), "1+3/" + whole + " 9");
  EXPECT_EQ(query(7, 10, auth::kRead), "9+2/5 end");
  EXPECT_EQ(query(0, 10, auth::kRead), "4+1/23 end");
  EXPECT_EQ(query(13, 10, auth::kRead), "end");

  pb::RemoveRequest remove;
  remove.set_target_id(kTarget);
  remove.set_chain_id(kChain);
  remove.set_chain_version(2);
  auto like = write_request(3, 0, "");
  *remove.mutable_chunk() = like.chunk();
  *remove.mutable_identity() = like.identity();
  std::string body = remove.SerializeAsString();
  EXPECT_CODE(client_->call(pb::REMOVE, body, client_token(auth::kRead | auth::kWrite)),
              kCapabilityDenied);
  ASSERT_OK(client_->call(pb::REMOVE, body, client_token(auth::kTruncate)));
  EXPECT_EQ(query(1, 10, auth::kRead), "1+1/" + whole + " 5+1/" + whole + " 9+2/5 end");
}

TEST_F(StorageTest, ClientMustNotSpeakForAnother) {
  serve();
  std::string bytes = pattern(4096, 6);
  auto request = write_request(0, 0, bytes);
  request.mutable_identity()->set_client_id(std::string(16, 'd'));
  auto answer = write(request, bytes);
  EXPECT_CODE(answer, kBadRequest);
  EXPECT_EQ(answer.status.detail().substr(0, 18), "identity.client_id");
}

// ---- bad requests

TEST_F(StorageTest, BadFieldsAreNamed) {
  serve();
  std::string bytes = pattern(4096, 7);
  auto too_far = write_request(0, kChunkSize - 4095, bytes);
  auto answer = write(too_far, bytes);
  EXPECT_CODE(answer, kBadRequest);
  EXPECT_EQ(answer.status.detail().substr(0, 7), "length:");
  auto short_source = write_request(0, 0, bytes);
  short_source.set_length(5000);
  EXPECT_CODE(write(short_source, bytes), kBadRequest);
  auto small_sink = read_request(0, 0, 4096).SerializeAsString();
  EXPECT_CODE(client_->call(pb::READ, small_sink, client_token(), {}, 100), kBadRequest);
  EXPECT_CODE(client_->call(pb::READ, "\xff\xff", client_token(), {}, 4096), kBadRequest);
  EXPECT_EQ(server_->statistics().metrics.bad_requests, 4u);
}

TEST_F(StorageTest, BytesThatAreNotThoseWrittenAreRefused) {
  serve();
  std::string bytes = pattern(4096, 8);
  auto request = write_request(0, 0, bytes);
  request.set_checksum(crc(bytes) ^ 1);
  EXPECT_CODE(write(request, bytes), kChecksumMismatch);
  EXPECT_TRUE(read(0, 0, 4096).bytes.empty());
  EXPECT_EQ(server_->statistics().metrics.checksum_errors, 1u);
}

// ---- server methods

TEST_F(StorageTest, DumpInPagesReadRawAndSpace) {
  serve();
  std::string bytes = pattern(5000, 9);
  for (uint64_t index : {3, 1, 2}) ASSERT_OK(write(index, 0, bytes));
  std::vector<uint64_t> seen;
  pb::DumpRequest request;
  request.set_target_id(kTarget);
  request.set_limit(2);
  for (bool end = false; !end;) {
    auto answer = predecessor_->call(pb::DUMP, request.SerializeAsString(), server_token());
    ASSERT_OK(answer);
    pb::DumpReply page;
    ASSERT_TRUE(page.ParseFromString(answer.body));
    for (const auto& info : page.chunks()) {
      seen.push_back(info.chunk().index());
      EXPECT_EQ(info.length(), 5000u);
      EXPECT_EQ(info.checksum(), crc(bytes));
      *request.mutable_after() = info.chunk();
    }
    end = page.end();
  }
  EXPECT_EQ(seen, (std::vector<uint64_t>{1, 2, 3}));

  pb::ReadRawRequest raw;
  raw.set_target_id(kTarget);
  raw.mutable_chunk()->set_inode(kInode);
  raw.mutable_chunk()->set_index(2);
  raw.set_offset(1000);
  raw.set_length(9000);
  auto got = predecessor_->call(pb::READ_RAW, raw.SerializeAsString(), server_token(), {}, 9000);
  ASSERT_OK(got);
  EXPECT_EQ(got.bytes, bytes.substr(1000));

  auto space = predecessor_->call(pb::SPACE, "", server_token());
  ASSERT_OK(space);
  pb::SpaceReply reply;
  ASSERT_TRUE(reply.ParseFromString(space.body));
  EXPECT_EQ(reply.chunks(), 3u);
  EXPECT_GT(reply.capacity_bytes(), 0u);
}

TEST_F(StorageTest, LargeChunkArrivesInPieces) {
  ASSERT_TRUE(route(1, 1, proto::OFFLINE).ok());
  ASSERT_TRUE(route(2, 2, proto::SERVING, true).ok());
  lease();
  std::string bytes = pattern(9'000'000, 10);
  craq::Forward effect;
  effect.to.target = kTarget;
  effect.chunk = {kInode, 0};
  effect.kind = UpdateKind::kReplace;
  effect.version = 7;
  effect.chain_version = 2;
  effect.update_chain = 2;
  effect.length = static_cast<uint32_t>(bytes.size());
  effect.chunk_size = 16 << 20;
  effect.checksum = crc(bytes);
  std::memcpy(effect.identity.client_id.data(), kClientId.data(), 16);
  effect.identity.sequence = 1;
  Answer last;
  for (size_t offset = 0; offset < bytes.size(); offset += kMaxPayload) {
    auto piece = bytes.substr(offset, kMaxPayload);
    last = predecessor_->call(pb::FORWARD,
                              encode_forward(effect, kChain, 21, static_cast<uint32_t>(offset)),
                              server_token(), piece);
    ASSERT_OK(last);
  }
  pb::UpdateReply update;
  ASSERT_TRUE(update.ParseFromString(last.body));
  EXPECT_EQ(update.checksum(), crc(bytes));
  auto got = read(0, 8'000'000, 2'000'000);
  ASSERT_OK(got);
  EXPECT_EQ(got.bytes, bytes.substr(8'000'000));
  EXPECT_CODE(write(0, 0, "x"), kNotHead);
}

TEST_F(StorageTest, SyncingReplicaListsWhatItHolds) {
  serve();
  std::string bytes = pattern(4096, 11);
  ASSERT_OK(write(1, 0, bytes));
  ASSERT_OK(write(2, 0, bytes));
  ASSERT_TRUE(route(3, 3, proto::SYNCING, true).ok());
  craq::AskPeerChunks ask;
  ask.peer.target = kTarget;
  ask.chain_version = 3;
  auto answer = predecessor_->call(
      pb::SYNC_START, encode_sync_start(ask, kChain, 21, ask.dedup, kMaxPage), server_token());
  ASSERT_OK(answer);
  craq::PeerChunks page;
  ASSERT_TRUE(decode_sync_start_reply(answer.body, page).ok());
  EXPECT_EQ(page.chunks.size(), 2u);
  EXPECT_TRUE(page.end);
  craq::TellPeerDone tell;
  tell.peer.target = kTarget;
  tell.chain_version = 3;
  ASSERT_OK(predecessor_->call(pb::SYNC_DONE, encode_sync_done(tell, kChain, 21), server_token()));
  EXPECT_EQ(server_->target_reports()[0].state, craq::LocalState::kUptodate);
  uint64_t counter = 0;
  EXPECT_EQ(::read(server_->notify_fd(), &counter, sizeof(counter)), 8);
}

TEST_F(StorageTest, StatisticsCount) {
  serve();
  std::string bytes = pattern(4096, 12);
  ASSERT_OK(write(0, 0, bytes));
  ASSERT_OK(read(0, 0, 4096));
  auto s = server_->statistics();
  EXPECT_EQ(s.metrics.write.count, 1u);
  EXPECT_EQ(s.metrics.write.bytes, 4096u);
  EXPECT_EQ(s.metrics.read.count, 1u);
  EXPECT_EQ(s.metrics.read.bytes, 4096u);
  EXPECT_EQ(s.metrics.stage.count, 1u);
  ASSERT_EQ(s.targets.size(), 1u);
  EXPECT_EQ(s.targets[0].second.chunks, 1u);
}

TEST_F(StorageTest, StoppedServerAnswersNothing) {
  serve();
  server_->stop();
  EXPECT_TRUE(server_->target_reports().empty());
  EXPECT_EQ(route(9, 9, proto::SERVING).code(), kShuttingDown);
  EXPECT_FALSE(read(0, 0, 4096).status.ok());
}

}  // namespace
}  // namespace fs3::storage
