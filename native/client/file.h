// OpenFile and Handle: what this client knows of an inode that is open here.
//
// One OpenFile per inode, shared by all its handles, so that every handle sees every other's
// unflushed bytes and the one size. Its mutex guards everything marked so and is never held while
// calling out: methods collect what has to happen (callbacks, runs to send) and the caller does it
// after unlocking.
//
// Size rules: `size` is what a reader here may see. It grows with local writes, is replaced by the
// metadata service's value when that is newer and nothing here is unsettled, and is the larger of
// both otherwise.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "client/chunk_call.h"
#include "client/client.h"
#include "client/dirty.h"

namespace fs3::proto::meta {
class Attr;
class OpenReply;
}  // namespace fs3::proto::meta

namespace fs3::client {

class Lane;
struct Handle;

// A capability as received. The client reads rights and lifetime, and compares no wall clocks: the
// life counts from the moment of arrival.
struct Token {
  std::string bytes;  // 80, or empty
  int64_t received_ns = 0;
  int64_t lifetime_ns = 0;
  bool past_half_life(int64_t now) const { return now - received_ns > lifetime_ns / 2; }
};

enum class Right : uint8_t { kRead, kWrite };

// As FILE_BYTES_MAX of fs3/limits.py.
constexpr uint64_t kFileBytesMax = 1ull << 62;

// Times of writes are those of the writer's clock, in ns since the epoch.
int64_t wall_ns();

// Bytes that were appended and have no place yet (append.h).
struct PendingAppend {
  Buffer data;
  bool keep = false;      // the buffer is nobody else's
  bool buffered = false;  // acknowledged before it is on its chains
  bool more_follows = false;
  int64_t since_ns = 0;
  int64_t wall_ns = 0;
  Lane* lane = nullptr;
  Client::AppendName name;
  Function<void(Result<Appended>)> done;  // null: acknowledged already
};

struct WriteMark {
  uint64_t generation = 0, bytes = 0;
};

struct OpenFile : std::enable_shared_from_this<OpenFile> {
  OpenFile(uint64_t inode, std::shared_ptr<Placement> placement);

  // One credential per right; they live in the file.
  class FileCredential : public Credential {
   public:
    FileCredential(OpenFile& file, Right right) : file_(file), right_(right) {}
    std::string token(const std::shared_ptr<Core>& core, Lane& lane) override;
    void renew(const std::shared_ptr<Core>& core, Lane& lane, Function<void(Status)> done) override;

   private:
    OpenFile& file_;
    const Right right_;
  };
  std::shared_ptr<Credential> credential(Right right);

  // REQUIRES (all of these): mutex held.
  void adopt(const proto::meta::Attr& attr, int64_t now);
  void adopt_token(const std::string& capability, int64_t now);
  // From the reply of an open or a sync that carries a capability.
  void adopt_quota(const proto::meta::OpenReply& reply);
  bool unsettled() const {
    return !dirty.empty() || write_generation != settled_generation || append_bytes > 0;
  }
  // The end of the file as it is seen here: appends without a place lie behind everything else.
  uint64_t size_seen() const { return size + append_bytes; }
  bool appending() const { return appends_placed < appends_made; }
  uint64_t unsettled_bytes() const { return accepted_bytes - settled_bytes + append_bytes; }
  void note_write(uint64_t offset, uint64_t length, int64_t wall_ns);
  void note_acked(uint64_t end);
  // Content changed by something else than bytes written here.
  void note_change(int64_t wall_ns);
  // What has been written up to now.
  WriteMark mark() const { return {write_generation, accepted_bytes}; }
  // Settling reached the service: nothing up to the mark needs to be told again.
  void note_settled(const WriteMark& mark);
  // `version` is the inode's from then on: what was told of it before counts no more.
  void note_truncated(uint64_t new_size, uint64_t version);
  void fail(const Status& status);

  const uint64_t inode;
  const std::shared_ptr<Placement> placement;

  std::mutex mutex;
  // ---- guarded by mutex ----
  uint64_t size = 0;
  uint64_t attr_version = 0;  // of the newest answer of the service, and what it said
  uint64_t attr_size = 0;
  bool has_holes = false;                // less than attr_size is stored
  int64_t attr_mtime_ns = 0;             // 0: not known
  std::optional<uint64_t> durable_size;  // this length, or a larger one, is on stable storage
  int64_t size_checked_ns = 0;           // when the service's size was last heard
  int64_t mtime_ns = 0;                  // of the last local write; 0 = none since settling
  uint64_t written_end = 0;       // one past the highest byte accepted since the last settling
  uint64_t acked_end = 0;         // one past the highest byte a chain acknowledged since then
  uint64_t write_generation = 0;  // grows with each accepted write
  uint64_t settled_generation = 0;
  uint64_t accepted_bytes = 0;  // by all writes together
  uint64_t settled_bytes = 0;   // of these, those that the service has heard of
  // Since the last settling, holes were made, or may have been left: the service has to ask storage
  // how much there is.
  bool made_holes = false;
  // Appends without a place, oldest first; append_bytes counts those on their way to one as well.
  std::deque<PendingAppend> appends;
  uint64_t append_bytes = 0;
  uint64_t appends_made = 0;
  uint64_t appends_placed = 0;  // or failed
  bool placing = false;         // a reservation is on its way
  bool place_timer_armed = false;
  struct PlaceWaiter {
    uint64_t appends = 0;  // so many are placed
    Lane* lane = nullptr;
    Function<void()> done;
  };
  std::vector<PlaceWaiter> place_waiters;
  bool timer_armed = false;
  DirtyChunks dirty;
  // A limit of bytes applies to the file, and is reached (fs3/meta/quota.py).
  bool limited = false;
  bool full = false;
  uint64_t counted_dirty = 0;  // this file's share of Counters::dirty_bytes
  Token tokens[2];             // by Right
  bool renewing[2] = {false, false};
  std::vector<std::pair<Lane*, Function<void(Status)>>> renewal_waiters[2];
  std::vector<Handle*> handles;
  // SYNC and CLOSE on their way that tell of writes. Whoever makes the file shorter waits for them
  // (settle_waiters): one that arrived after the cut would make it long again.
  size_t settling = 0;
  std::vector<std::pair<Lane*, Function<void()>>> settle_waiters;

  struct Waiter {
    uint64_t epoch = 0;
    uint64_t first_chunk = 0;
    uint64_t last_chunk = UINT64_MAX;
    bool through = false;  // gets the error of a failed run; others find it at their handle
    Status status;
    Lane* lane = nullptr;
    Function<void(Status)> done;
  };
  std::vector<Waiter> waiters;
  struct RoomWaiter {
    uint64_t bytes_max = 0;
    Lane* lane = nullptr;
    Function<void()> done;
  };
  std::vector<RoomWaiter> room_waiters;

 private:
  FileCredential read_credential_{*this, Right::kRead};
  FileCredential write_credential_{*this, Right::kWrite};
};

// One open(2). Registered with its file from construction to destruction.
struct Handle {
  Handle(std::shared_ptr<OpenFile> file, uint32_t flags, std::string session);
  ~Handle();
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  bool readable() const;
  bool writable() const;
  bool appends() const;
  // Every write waits for its chains (O_DIRECT, O_SYNC, O_DSYNC).
  bool through() const;
  // Every write is durable when it is answered (O_SYNC, O_DSYNC).
  bool syncs() const;
  // Reads come from the chains alone (O_DIRECT).
  bool direct() const;

  const std::shared_ptr<OpenFile> file;
  const uint32_t flags;
  const int64_t opened_ns;
  // ---- guarded by file->mutex ----
  std::string session;  // 16 bytes, empty for a read-only open
  Status error;         // of a buffered write; reported once by flush, fsync or close
  // The next buffered write fails with `error` as well: who writes on without ever syncing learns
  // of a full disk while it still matters. Once per failure, so that freeing space suffices.
  bool refuse_next = false;
  bool closed = false;
};

// The inodes that are open here. Thread safe; its mutex is taken before a file's.
class FileTable {
 public:
  // The file of `inode`, made when nobody has it open.
  std::shared_ptr<OpenFile> open(uint64_t inode, const std::shared_ptr<Placement>& placement);
  // Null when nobody has it open.
  std::shared_ptr<OpenFile> find(uint64_t inode);
  std::vector<std::shared_ptr<OpenFile>> all();

 private:
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::weak_ptr<OpenFile>> files_;
  size_t prune_at_ = 64;
};

}  // namespace fs3::client
