// What the mount hears from both sides: requests as the kernel would not send them, and answers of
// the metadata service as it would not give them. Input: a sequence of requests, each in the bytes
// of /dev/fuse; whenever one makes a metadata call, the answer is taken from the input too.
#include <cerrno>
#include <deque>
#include <memory>

#include "client/file.h"
#include "client/routing.h"
#include "fuse/cluster_fs.h"
#include "fuse/negotiate.h"
#include "fuzz.h"
#include "meta.pb.h"

namespace fs3::fuzz {
namespace {

using namespace fuse;
constexpr size_t kCallsMax = 200;  // per input: a listing may ask for many pages

// Answers from the input. Data goes nowhere: the bytes of files have their own decoders.
class ScriptedClient final : public client::Client {
 public:
  explicit ScriptedClient(Input& in) : in_(in) {}

  void meta_call(uint16_t, std::string, uint32_t, std::string, client::MetaCallback done) override {
    calls_.push_back(std::move(done));
    if (at_once_) answer_one();
  }
  CallName new_call_name() override { return {std::string(16, 'f'), ++names_}; }
  void meta_call_as(const CallName&, uint16_t method, std::string caller, uint32_t umask,
                    std::string body, client::MetaCallback done) override {
    meta_call(method, std::move(caller), umask, std::move(body), std::move(done));
  }
  client::FileHandle open_handle(const std::string& raw, uint32_t flags) override {
    proto::meta::OpenReply reply;
    if (!reply.ParseFromString(raw)) return nullptr;
    auto placement = client::Placement::create(reply.attr().layout());
    if (!placement.ok()) return nullptr;
    auto file = files_.open(reply.attr().inode(), *placement);
    auto handle = std::make_shared<client::Handle>(file, flags, reply.session());
    std::lock_guard lock(file->mutex);
    file->adopt(reply.attr(), 1);
    file->adopt_token(reply.capability(), 1);
    for (const auto& token : file->tokens) FS3_CHECK(token.lifetime_ns >= 0);
    return handle;
  }
  void read(client::FileHandle, uint64_t, std::byte* into, size_t length,
            Function<void(Result<size_t>)> done, client::Holes) override {
    std::memset(into, 1, length);
    done(length);
  }
  void write(client::FileHandle, uint64_t, Buffer data, client::WriteAt,
             Function<void(Result<size_t>)> done) override {
    uint8_t sum = 0;
    for (std::byte byte : data.span()) sum ^= static_cast<uint8_t>(byte);
    done(sum == 0xff ? Result<size_t>(Status(EIO, "fuzz", "")) : Result<size_t>(data.size()));
  }
  void append(client::FileHandle, Buffer data, client::AppendMode, AppendName,
              Function<void(Result<client::Appended>)> done) override {
    done(client::Appended{data.size(), 0});
  }
  void seek(client::FileHandle, uint64_t offset, client::SeekFor,
            Function<void(Result<uint64_t>)> done) override {
    done(offset);
  }
  void fallocate(client::FileHandle, uint32_t, uint64_t, uint64_t,
                 Function<void(Status)> done) override {
    done(Status());
  }
  void copy_range(client::FileHandle, uint64_t, client::FileHandle, uint64_t, uint64_t length,
                  Function<void(Result<uint64_t>)> done) override {
    done(length);
  }
  void sync_all(Function<void(Status)> done) override { done(Status()); }
  void flush(client::FileHandle, Function<void(Status)> done) override { done(Status()); }
  void fsync(client::FileHandle, bool, Function<void(Status)> done) override { done(Status()); }
  void fdatasync(client::FileHandle, Function<void(Status)> done) override { done(Status()); }
  void close(client::FileHandle, Function<void(Status)> done) override { done(Status()); }
  void settle(uint64_t, Function<void(Status)> done) override { done(Status()); }
  void note_truncated(uint64_t inode, uint64_t size, uint64_t version) override {
    auto file = files_.find(inode);
    if (!file) return;
    std::lock_guard lock(file->mutex);
    file->note_truncated(size, version);
  }
  bool local_size(uint64_t inode, uint64_t, uint64_t* size, int64_t* mtime_ns) override {
    *size = inode;
    *mtime_ns = static_cast<int64_t>(inode);
    return inode % 3 == 0;
  }
  uint64_t unsettled_bytes(uint64_t inode) override { return inode; }
  Told last_told(const client::FileHandle& handle) const override {
    const client::OpenFile& file = *handle->file;
    return {file.attr_version, file.attr_size, file.attr_mtime_ns};
  }
  uint64_t handle_inode(const client::FileHandle& file) const override { return file->file->inode; }
  void truncate_chunks(uint64_t, std::string, uint64_t, uint64_t, Function<void(Status)>) override {
  }
  void remove_chunks(uint64_t, std::string, uint64_t, Function<void(Status)>) override {}
  void measure(uint64_t, std::string, Function<void(Result<Measure>)>) override {}
  void set_server_lease(int64_t) override {}
  void update_routing(std::string_view) override {}
  std::string routing() const override { return {}; }
  Statistics statistics() const override { return {}; }
  void shutdown() override {}

  // Answers the oldest call. Later calls may come of it.
  bool answer_one() {
    if (calls_.empty()) return false;
    auto done = std::move(calls_.front());
    calls_.pop_front();
    uint8_t how = in_.byte();
    if (++answered_ > kCallsMax || how == 255) {
      done(Status(how == 255 ? static_cast<uint32_t>(in_.byte()) + 1 : EIO, "fuzz", "no answer"));
    } else {
      done(std::string(in_.long_string()));
    }
    return true;
  }
  // From now on: whoever calls waits for the answer.
  void answer_at_once() { at_once_ = true; }
  size_t answered() const { return answered_; }

 private:
  uint64_t names_ = 0;
  Input& in_;
  client::FileTable files_;
  std::deque<client::MetaCallback> calls_;
  size_t answered_ = 0;
  bool at_once_ = false;
};

struct Replies {
  size_t made = 0;
  size_t sent = 0;
};

// A request in memory; owns a copy of its message, so that a read beyond it is seen.
class MemoryRequest final : public Request {
 public:
  MemoryRequest(const Decoded& decoded, Replies& replies)
      : arguments_(decoded.operation.begin(), decoded.operation.end()),
        data_(decoded.payload.begin(), decoded.payload.end()),
        replies_(replies) {
    header_ = decoded.header;
    header_.pid = 0;  // the groups of a process are not what is tried here
    operation_ = Bytes(arguments_.data(), arguments_.size());
    payload_ = Bytes(data_.data(), data_.size());
    ++replies_.made;
  }
  Buffer payload_buffer(size_t length) override {
    FS3_CHECK(length <= payload_.size());
    return Buffer::copy_of(payload_.data(), length);
  }
  std::byte* reply_space(size_t length) override {
    FS3_CHECK(length <= kMaxTransfer);
    space_.resize(length);
    return space_.data();
  }
  void finish(int error, const void* data, size_t length) override {
    FS3_CHECK(length <= kMaxTransfer && (error == 0 || length == 0));
    FS3_CHECK(error >= 0 && error < 4096);
    uint8_t sum = 0;
    for (size_t i = 0; i < length; ++i) sum ^= static_cast<const uint8_t*>(data)[i];
    sum_ = sum;
    finish_without_reply();
  }
  void finish_without_reply() override {
    ++replies_.sent;
    delete this;
  }

 private:
  std::vector<std::byte> arguments_;
  std::vector<std::byte> data_;
  std::vector<std::byte> space_;
  Replies& replies_;
  volatile uint8_t sum_ = 0;
};

// As /dev/fuse would deliver it: the length is what was read; everything else is the input's.
std::string take_message(Input& in) {
  fuse_in_header header{};
  uint8_t options = in.byte();
  header.opcode = in.byte();
  header.unique = 2;
  header.nodeid = options & 1 ? in.take<uint64_t>() : in.byte();
  header.total_extlen = options & 2 ? in.take<uint16_t>() : 0;
  header.uid = options & 4 ? in.byte() : 0;
  std::string rest(in.long_string());
  header.len = static_cast<uint32_t>(sizeof header + rest.size() + (options & 8 ? in.byte() : 0));
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + rest;
}

Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

void negotiate(const std::string& message) {
  Negotiation wanted{.max_background = 256, .max_readahead = 4u << 20, .offer_uring = true};
  auto answer = negotiate_init(bytes_of(message).subspan(sizeof(fuse_in_header)), wanted);
  if (answer.ok()) FS3_CHECK(answer->out.max_write == kMaxTransfer);
}

// As Session::dispatch. True when the message was a request.
bool dispatch(ClusterFs& fs, const std::string& message, Replies& replies) {
  auto decoded = decode_request(bytes_of(message));
  if (!decoded.ok()) {
    FS3_CHECK(decoded.status().code() == kBadRequest);
    return false;
  }
  RequestPtr request(new MemoryRequest(*decoded, replies));
  uint32_t opcode = decoded->header.opcode;
  if (!decoded->known || opcode == FUSE_INTERRUPT || opcode == FUSE_DESTROY) {
    if (opcode == FUSE_INIT) negotiate(message);
    reply_error(std::move(request), ENOSYS);
  } else {
    fs.handle(std::move(request));
  }
  return true;
}

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  Input in(input);
  auto client = std::make_shared<ScriptedClient>(in);
  Replies replies;
  bool good = !in.empty();
  {
    // Attributes expire at once: there is no kernel to take them back from.
    ClusterFs fs(client, {.ttl_max_ns = 0});
    while (!in.empty() && client->answered() < kCallsMax) {
      good &= dispatch(fs, take_message(in), replies);
      // Several requests may be under way before the first is answered.
      if (in.byte() % 4 != 0) {
        while (client->answer_one()) {
        }
      }
    }
    while (client->answer_one()) FS3_CHECK(client->answered() < 4 * kCallsMax);
    client->answer_at_once();
    fs.shutdown();
  }
  FS3_CHECK(replies.made == replies.sent);
  return good;
}

}  // namespace fs3::fuzz
