#include "client/watch.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "client/core.h"
#include "client/meta.h"
#include "client/session.h"
#include "meta.pb.h"

namespace fs3::client {
namespace {

// Longer than the service keeps a WATCH, shorter than a session.
constexpr int64_t kWatchDeadlineNs = 4'000'000'000;
constexpr int64_t kAgainNs = 100'000'000;
constexpr int64_t kUnsupportedNs = 10'000'000'000;

class Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(std::shared_ptr<Core> core, LeaseHolder& holder, std::string formerly)
      : core_(std::move(core)),
        lane_(*core_->lanes()[0]),
        holder_(holder),
        formerly_(std::move(formerly)),
        inherited_until_ns_(formerly_.empty() ? 0 : now_ns() + kSessionNs) {}

  void publish() {
    if (core_->closed()) return;
    for (const auto& file : core_->files.all()) {
      bool unsettled;
      {
        std::lock_guard lock(file->mutex);
        unsettled = file->unsettled() && file->settling == 0;
      }
      // What cannot be written is told by the handles, as ever.
      if (unsettled) settle_file(core_, file, [](const Status&) {});
    }
    lane_.after(kPublishNs, [self = shared_from_this()] { self->publish(); });
  }

  void send() {
    if (core_->closed()) return;
    proto::meta::WatchRequest request;
    request.set_session(session_);
    request.set_received(received_);
    request.set_acked(acked_);
    request.set_wait(true);
    if (session_ == 0) request.set_formerly(formerly_);
    int64_t sent_ns = now_ns();
    call(request, [self = shared_from_this(), sent_ns](const proto::meta::WatchReply* reply) {
      self->answered(sent_ns, reply);
    });
  }

 private:
  struct Owed {
    uint64_t sequence;
    bool obeyed = false;
  };

  template <typename Then>
  void call(const proto::meta::WatchRequest& request, Then then) {
    Client::CallName name{core_->options.client_id, core_->next_request_id()};
    auto body = with_header(name, process_caller(), 0, request.SerializeAsString());
    send_meta_call(core_, lane_, proto::meta::WATCH, std::move(body).value(),
                   now_ns() + kWatchDeadlineNs, [then](Result<std::string> raw) {
                     proto::meta::WatchReply reply;
                     bool ok = raw.ok() && reply.ParseFromString(*raw);
                     then(ok ? &reply : nullptr);
                   });
  }

  void later(int64_t delay_ns) {
    if (core_->closed()) return;
    lane_.after(delay_ns, [self = shared_from_this()] { self->send(); });
  }

  // No answer changes nothing: the session ends by itself, and the next WATCH finds out.
  void answered(int64_t sent_ns, const proto::meta::WatchReply* reply) {
    if (core_->closed()) return;
    if (reply == nullptr) return later(kAgainNs);
    if (reply->unsupported()) {
      if (session_ != 0) lose();
      return later(kUnsupportedNs);
    }
    if (reply->session() == 0) {
      if (session_ != 0) lose();
      // What the kernel was told before is outdated by then.
      return later(std::max(kObeyNs, inherited_until_ns_ - now_ns()));
    }
    if (reply->session() != session_) {
      session_ = reply->session();
      formerly_.clear();
      received_ = acked_ = 0;
      owed_.clear();
    }
    if (reply->session_ms() > 0) {
      holder_.session(session_, sent_ns + int64_t{reply->session_ms()} * 1'000'000);
    }
    if (reply->sequence() > received_) take(*reply);
    send();
  }

  void lose() {
    session_ = 0;
    owed_.clear();
    holder_.session(0, 0);
  }

  void take(const proto::meta::WatchReply& reply) {
    uint64_t sequence = reply.sequence();
    std::vector<Recall> recalls;
    for (const auto& recall : reply.recalls()) {
      recalls.push_back({recall.inode(), recall.data_version(), recall.parent(), recall.name()});
    }
    received_ = sequence;
    owed_.push_back({sequence});
    lane_.after(kObeyNs, [self = shared_from_this(), session = session_, sequence] {
      self->obeyed(session, sequence);
    });
    taking_ = true;
    holder_.recalled(
        sequence, std::move(recalls), [self = shared_from_this(), session = session_, sequence] {
          self->lane_.run([self, session, sequence] { self->obeyed(session, sequence); });
        });
    taking_ = false;
  }

  void obeyed(uint64_t session, uint64_t sequence) {
    if (core_->closed() || session != session_ || sequence <= acked_) return;
    for (Owed& owed : owed_) owed.obeyed |= owed.sequence == sequence;
    uint64_t before = acked_;
    while (!owed_.empty() && owed_.front().obeyed) {
      acked_ = owed_.front().sequence;
      owed_.pop_front();
    }
    if (acked_ != before && !taking_) acknowledge();
  }

  // When it gets lost, the next WATCH says so again.
  void acknowledge() {
    proto::meta::WatchRequest request;
    request.set_session(session_);
    request.set_acked(acked_);
    call(request, [](const proto::meta::WatchReply*) {});
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  LeaseHolder& holder_;
  std::string formerly_;  // lane thread only
  const int64_t inherited_until_ns_;
  // Lane thread only.
  uint64_t session_ = 0;
  uint64_t received_ = 0;
  uint64_t acked_ = 0;
  std::deque<Owed> owed_;
  bool taking_ = false;
};

}  // namespace

void start_watch(std::shared_ptr<Core> core, LeaseHolder& holder, std::string formerly) {
  Lane& lane = *core->lanes()[0];
  auto watch = std::make_shared<Watch>(std::move(core), holder, std::move(formerly));
  lane.run([watch] {
    watch->publish();
    watch->send();
  });
}

}  // namespace fs3::client
