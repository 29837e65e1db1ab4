#include "client/meta.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "client/core.h"
#include "client/retry.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

// An attempt that nobody answers is given up after this and repeated elsewhere. Longer than the
// work of one operation (a large truncate included), shorter than the deadline of a call.
constexpr int64_t kAttemptNs = 10'000'000'000;
// With another service at hand: a stopped one is left within 2 s. A truncate that takes longer is
// found by the next attempt as what it is, begun and recorded, so each attempt waits twice as long.
constexpr int64_t kFirstAttemptNs = 1'200'000'000;
constexpr int kGroupsMax = 32;

bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// One call, alive until its `done` ran. Lane thread only.
class MetaCall : public std::enable_shared_from_this<MetaCall> {
 public:
  MetaCall(std::shared_ptr<Core> core, Lane& lane, uint16_t method, std::string body,
           int64_t deadline_ns, MetaCallback done)
      : core_(std::move(core)),
        lane_(lane),
        method_(method),
        body_(std::move(body)),
        deadline_ns_(deadline_ns),
        done_(std::move(done)) {}

  void attempt() {
    int64_t now = now_ns();
    if (core_->closed()) return finish(core_->closed_status());
    if (now >= deadline_ns_) return finish(deadline_passed("client/meta", last_));
    if (!choose_server()) {
      return finish(
          Status(EHOSTUNREACH, "client/meta", "no metadata address; give one to the client"));
    }
    net::CallSpec spec;
    spec.method = method_;
    spec.body = body_;
    spec.deadline_ns = std::min(deadline_ns_, now + patience_ns());
    lane_.call(address_, std::move(spec),
               [self = shared_from_this()](net::Reply reply) { self->answered(std::move(reply)); });
  }

 private:
  int64_t patience_ns() const {
    if (servers_ < 2) return kAttemptNs;
    return std::min(kAttemptNs, kFirstAttemptNs << std::min(unanswered_, 3u));
  }

  // Keeps the address that answered last; after a failure, the next usable one in the list.
  bool choose_server() {
    auto all = meta_addresses(*core_);
    servers_ = all.size();
    const std::string& current = address_.empty() ? lane_.preferred_meta : address_;
    auto found = std::find(all.begin(), all.end(), current);
    size_t index = found == all.end() ? 0 : static_cast<size_t>(found - all.begin());
    if (move_on_ && !all.empty()) index = (index + 1) % all.size();
    move_on_ = false;
    address_ = choose_address(all, static_cast<unsigned>(index));
    return !address_.empty();
  }

  void answered(net::Reply reply) {
    if (core_->closed()) return finish(core_->closed_status());
    Retry retry = retry_of(reply.status.code());
    if (retry == Retry::kNo) {
      if (reply.status.ok()) lane_.preferred_meta = address_;
      if (!reply.status.ok()) return finish(reply.status);
      return finish(std::move(reply.body));
    }
    last_ = reply.status;
    ++failures_;
    if (reply.status.code() == kTimedOut) ++unanswered_;
    core_->counters.meta_retries.fetch_add(1, std::memory_order_relaxed);
    move_on_ = retry != Retry::kSameServer;
    // The first round over all servers costs no pause.
    unsigned round = move_on_ ? failures_ / std::max<size_t>(servers_, 1) : failures_;
    lane_.after(round == 0 ? 0 : lane_.jitter(backoff_ns(round)),
                [self = shared_from_this()] { self->attempt(); });
  }

  void finish(Result<std::string> result) {
    MetaCallback done = std::move(done_);
    done(std::move(result));
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const uint16_t method_;
  const std::string body_;
  const int64_t deadline_ns_;
  MetaCallback done_;
  std::string address_;
  Status last_;
  size_t servers_ = 0;
  unsigned failures_ = 0;
  unsigned unanswered_ = 0;
  bool move_on_ = false;
};

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

}  // namespace

std::vector<std::string> meta_addresses(const Core& core) {
  auto routing = core.routing.snapshot();
  std::vector<std::string> all;
  for (const std::string& address : core.options.meta_addresses) {
    if (!contains(routing->lost_meta_addresses, address)) all.push_back(address);
  }
  for (const std::string& address : routing->meta_addresses) {
    if (!contains(all, address)) all.push_back(address);
  }
  if (!all.empty()) return all;
  all = core.options.meta_addresses;
  for (const std::string& address : routing->lost_meta_addresses) {
    if (!contains(all, address)) all.push_back(address);
  }
  return all;
}

void send_meta_call(std::shared_ptr<Core> core, Lane& lane, uint16_t method, std::string body,
                    int64_t deadline_ns, MetaCallback done) {
  core->counters.meta_calls.fetch_add(1, std::memory_order_relaxed);
  auto call =
      std::make_shared<MetaCall>(core, lane, method, std::move(body), deadline_ns, std::move(done));
  lane.run([call] { call->attempt(); });
}

Result<std::string> with_header(const Client::CallName& name, const std::string& caller,
                                uint32_t umask, const std::string& body) {
  proto::meta::Header header;
  if (!header.mutable_caller()->ParseFromString(caller)) {
    return Status(kBadRequest, "client/meta", "caller: not an fs3.meta.Caller");
  }
  header.set_client_id(name.client_id);
  header.set_request_id(name.request_id);
  header.set_umask(umask);
  std::string serialized = header.SerializeAsString();
  std::string out;
  out.reserve(serialized.size() + body.size() + 8);
  out.push_back(0x0a);  // field 1, length-delimited
  append_varint(out, serialized.size());
  out.append(serialized).append(body);
  return out;
}

std::string process_caller() {
  proto::meta::Caller caller;
  caller.set_uid(::geteuid());
  caller.set_gid(::getegid());
  caller.set_pid(static_cast<uint32_t>(::getpid()));
  std::vector<gid_t> groups(static_cast<size_t>(std::max(::getgroups(0, nullptr), 0)));
  int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  for (int i = 0; i < std::min(count, kGroupsMax); ++i) {
    caller.add_groups(groups[static_cast<size_t>(i)]);
  }
  return caller.SerializeAsString();
}

void send_own_meta_call(std::shared_ptr<Core> core, Lane& lane, uint16_t method,
                        const std::string& body, MetaCallback done) {
  Client::CallName name{core->options.client_id, core->next_request_id()};
  std::string whole = with_header(name, process_caller(), 0, body).value();
  int64_t deadline_ns = now_ns() + core->options.meta_deadline_ns;
  send_meta_call(std::move(core), lane, method, std::move(whole), deadline_ns, std::move(done));
}

}  // namespace fs3::client
