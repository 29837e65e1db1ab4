#include "storage/forwarder.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "storage.pb.h"
#include "storage/codec.h"

namespace fs3::storage {
namespace {

// A successor that does not answer for so long is repeated to; longer than a chain change takes at
// the default lease, so that a slow disk is not asked twice.
constexpr int64_t kDeadlineNs = 5'000'000'000;
constexpr uint64_t kTokenLifetimeMs = 600'000;

uint64_t wall_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Forwarder::Pieces {
  craq::Forward effect;
  Origin from;
  Buffer bytes;
  uint32_t sent = 0;  // bytes of pieces that were answered
  Function<void(craq::ForwardDone)> done;
};

struct Forwarder::Question {
  craq::AskPeerChunks effect;
  Origin from;
  size_t rows_sent = 0;
  Function<void(craq::PeerChunks)> done;
};

struct Forwarder::Fetching {
  craq::Fetch effect;
  Origin from;
  Function<void(craq::Fetched, Buffer)> done;
  craq::Fetched outcome;
  Buffer bytes;
  uint32_t got = 0;

  void end(Status status) {
    outcome.status = std::move(status);
    done(outcome, std::move(bytes));
  }
  // Takes one answer; ok with got < length: more is to be asked for.
  Status take(const engine::VersionInfo& whole, const Buffer& piece) {
    if (got == 0) {
      outcome.version = whole.version;
      outcome.update_chain = whole.chain_version;
      outcome.length = whole.length;
      outcome.checksum = whole.checksum;
      bytes = Buffer::allocate(whole.length);
      bytes.resize(whole.length);
    }
    bool same = outcome.version == whole.version && outcome.update_chain == whole.chain_version &&
                outcome.length == whole.length;
    if (!same) return Status(kBusy, "storage/fetch", "the chunk changed between its pieces");
    if (piece.size() != std::min(whole.length - got, kMaxPayload))
      return Status(kBadRequest, "storage/fetch",
                    "length: the answer has fewer bytes than it says");
    if (!piece.empty()) std::memcpy(bytes.data() + got, piece.data(), piece.size());
    got += static_cast<uint32_t>(piece.size());
    if (got < whole.length || crc32c(0, bytes.data(), got) == whole.checksum) return {};
    return Status(kChecksumMismatch, "storage/fetch", "the bytes are not what the peer says");
  }
};

Forwarder::Forwarder(Reactor& reactor, net::Identity self,
                     std::shared_ptr<const auth::Keyring> keyring)
    : reactor_(reactor), self_(std::move(self)), keyring_(std::move(keyring)) {}

Forwarder::~Forwarder() { *alive_ = false; }

void Forwarder::set_addresses(const std::map<uint32_t, std::vector<std::string>>& addresses) {
  // Channels end last: their open calls end with them, and those callbacks may call us again.
  std::vector<std::shared_ptr<net::Channel>> old;
  for (auto it = nodes_.begin(); it != nodes_.end();) {
    auto found = addresses.find(it->first);
    bool keep = found != addresses.end() && found->second == it->second.addresses;
    if (!keep) old.push_back(std::move(it->second.channel));
    it = keep ? std::next(it) : nodes_.erase(it);
  }
  for (const auto& [node_id, list] : addresses)
    if (node_id != self_.node_id && !nodes_.contains(node_id)) nodes_[node_id].addresses = list;
}

const std::string& Forwarder::token() {
  uint64_t now_ms = wall_ms();
  // A clock that was set back must not leave us with a token from the future.
  bool issued_later = token_renew_ms_ > now_ms + kTokenLifetimeMs / 2;
  if (!token_.empty() && now_ms < token_renew_ms_ && !issued_later) return token_;
  auth::Capability capability;
  capability.rights = auth::kServer;
  std::copy_n(self_.cluster_id.begin(), capability.cluster.size(), capability.cluster.begin());
  std::copy_n(self_.instance_id.begin(), capability.client.size(), capability.client.begin());
  capability.issued_ms = now_ms;
  capability.expiry_ms = now_ms + kTokenLifetimeMs;
  token_ = keyring_->mint(capability);
  token_renew_ms_ = now_ms + kTokenLifetimeMs / 2;
  return token_;
}

Result<std::shared_ptr<net::Channel>> Forwarder::channel(uint32_t node_id) {
  auto it = nodes_.find(node_id);
  if (it == nodes_.end() || it->second.addresses.empty())
    return Status(kConnectionLost, "storage/forward",
                  "no address of storage node " + std::to_string(node_id) + " in the routing info");
  Node& node = it->second;
  bool try_next = node.channel && !node.channel->healthy() && node.addresses.size() > 1;
  if (node.channel && !try_next) return node.channel;
  if (try_next) node.next = (node.next + 1) % node.addresses.size();
  auto made = net::Channel::create(reactor_, node.addresses[node.next], self_);
  if (!made.ok()) return made.status();
  auto old = std::exchange(node.channel, *made);  // ends its open calls when it goes, at the return
  return *made;
}

void Forwarder::call(uint32_t node_id, net::CallSpec spec, net::ReplyCallback done) {
  auto peer = channel(node_id);
  if (!peer.ok()) {
    net::Reply reply;
    reply.status = peer.status();
    return done(std::move(reply));
  }
  spec.capability = token();
  spec.deadline_ns = now_ns() + kDeadlineNs;
  (*peer)->call(std::move(spec),
                [alive = alive_, done = std::move(done)](net::Reply reply) mutable {
                  if (*alive) done(std::move(reply));
                });
}

void Forwarder::forward(const craq::Forward& effect, Origin from, Buffer bytes,
                        Function<void(craq::ForwardDone)> done) {
  FS3_CHECK(effect.bytes == craq::Forward::Bytes::kNone || bytes.size() == effect.length);
  send_piece(std::make_shared<Pieces>(Pieces{effect, from, std::move(bytes), 0, std::move(done)}));
}

void Forwarder::send_piece(std::shared_ptr<Pieces> pieces) {
  const Buffer& bytes = pieces->bytes;
  size_t length = std::min<size_t>(bytes.size() - pieces->sent, kMaxPayload);
  net::CallSpec spec;
  spec.method = proto::storage::FORWARD;
  spec.body = encode_forward(pieces->effect, pieces->from.chain, pieces->from.target, pieces->sent);
  if (length > 0) {
    auto region = net::Channel::register_memory(bytes.data(), bytes.size());
    spec.source.push_back({region, pieces->sent, length});
    spec.keep_alive.push_back(bytes);
    spec.source_checksum = pieces->effect.checksum;
    spec.has_source_checksum = length == bytes.size();
  }
  call(pieces->effect.to.node_id, std::move(spec),
       [this, pieces, length](net::Reply reply) mutable {
         pieces->sent += static_cast<uint32_t>(length);
         if (reply.status.ok() && pieces->sent < pieces->bytes.size())
           return send_piece(std::move(pieces));
         craq::ForwardDone outcome{pieces->effect.op, reply.status, 0};
         if (reply.status.ok()) {
           auto checksum = decode_update_reply(reply.body);
           outcome.status = checksum.status();
           if (checksum.ok()) outcome.checksum = *checksum;
         }
         pieces->done(std::move(outcome));
       });
}

void Forwarder::ask_chunks(const craq::AskPeerChunks& effect, Origin from,
                           Function<void(craq::PeerChunks)> done) {
  send_rows(std::make_shared<Question>(Question{effect, from, 0, std::move(done)}));
}

// All rows but the last batch go ahead of the question, in requests that ask for no page.
void Forwarder::send_rows(std::shared_ptr<Question> question) {
  const auto& effect = question->effect;
  std::span rows(effect.dedup);
  rows = rows.subspan(question->rows_sent);
  bool last = rows.size() <= kMaxDedupRows;
  if (!last) rows = rows.first(kMaxDedupRows);
  question->rows_sent += rows.size();
  net::CallSpec spec;
  spec.method = proto::storage::SYNC_START;
  spec.body = encode_sync_start(effect, question->from.chain, question->from.target, rows,
                                last ? kMaxPage : 0);
  call(effect.peer.node_id, std::move(spec), [this, question, last](net::Reply reply) mutable {
    if (reply.status.ok() && !last) return send_rows(std::move(question));
    craq::PeerChunks page;
    page.op = question->effect.op;
    page.status = reply.status;
    if (page.status.ok()) page.status = decode_sync_start_reply(reply.body, page);
    question->done(std::move(page));
  });
}

void Forwarder::tell_done(const craq::TellPeerDone& effect, Origin from,
                          Function<void(craq::PeerDone)> done) {
  net::CallSpec spec;
  spec.method = proto::storage::SYNC_DONE;
  spec.body = encode_sync_done(effect, from.chain, from.target);
  call(effect.peer.node_id, std::move(spec),
       [op = effect.op, done = std::move(done)](net::Reply reply) mutable {
         done(craq::PeerDone{op, reply.status});
       });
}

void Forwarder::fetch(const craq::Fetch& effect, Origin from,
                      Function<void(craq::Fetched, Buffer)> done) {
  auto fetching = std::make_shared<Fetching>(Fetching{effect, from, std::move(done), {}, {}, 0});
  fetching->outcome.op = effect.op;
  fetch_piece(std::move(fetching));
}

void Forwarder::fetch_piece(std::shared_ptr<Fetching> fetching) {
  Buffer piece = Buffer::allocate(kMaxPayload);
  net::CallSpec spec;
  spec.method = proto::storage::FETCH;
  spec.body = encode_fetch(fetching->effect, fetching->from.chain, fetching->from.target,
                           fetching->got, kMaxPayload);
  spec.sink.push_back({net::Channel::register_memory(piece.data(), kMaxPayload), 0, kMaxPayload});
  spec.keep_alive.push_back(piece);
  call(fetching->effect.from.node_id, std::move(spec),
       [this, fetching, piece](net::Reply reply) mutable {
         if (!reply.status.ok()) return fetching->end(reply.status);
         auto whole = decode_fetch_reply(reply.body);
         if (!whole.ok()) return fetching->end(whole.status());
         Status status = fetching->take(*whole, piece.slice(0, reply.sink_length));
         if (status.ok() && fetching->got < fetching->outcome.length)
           return fetch_piece(std::move(fetching));
         fetching->end(std::move(status));
       });
}

}  // namespace fs3::storage
