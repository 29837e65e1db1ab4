// The native client: everything an application, the mount and the metadata service's garbage
// collector need of fs3.
//
//   Client ── metadata calls (fail-over, deadlines, request ids) ── net ── meta
//          └─ File reads and writes (striping, replica choice, retries, write-back) ── net ──
//          storage
//
// One Client serves many threads: every call may come from any thread. A callback runs inside the
// call when nothing has to be waited for (buffered writes, reads of own dirty bytes), otherwise on
// the reactor the call was made on, or on one of the client's reactors; it must not block. A Client
// owns its reactor threads unless it is given one (the mount runs the FUSE session and the client
// on the same reactors, so a request never changes its thread). No thread starts before create().
// After fork() the child must create its own Client (calls on an inherited one fail with
// ESHUTDOWN).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"

namespace fs3::client {

struct Options {
  std::vector<std::string> meta_addresses;    // "tcp://127.0.0.1:7011"; routing comes from there
  std::string cluster_id;                     // 16 bytes; empty: not known yet (clients only)
  std::string client_id;                      // 16 random bytes, fresh per process
  int64_t meta_deadline_ns = 30'000'000'000;  // a metadata call is repeated until then
  int64_t data_deadline_ns = 60'000'000'000;  // a chunk read or write is repeated until then
  size_t write_back_bytes = 4u << 20;         // per open file; 0 = every write goes through
  size_t max_inflight_bytes = 64u << 20;      // writes and reads on the wire
  std::string capability_key;  // servers only: serialized keyring, to mint server capabilities
};

// A metadata reply: protobuf bytes of fs3.meta.*Reply.
using MetaCallback = Function<void(Result<std::string>)>;

struct OpenFile;  // shared between opens of one inode in this client: size, dirty ranges,
                  // capability
using FileHandle = std::shared_ptr<struct Handle>;

// Where a write through a handle with O_APPEND goes.
enum class WriteAt {
  kAsOpened,  // to the end of the file
  kOffset,    // to the offset given: a page of a mapping has its place
  kThrough,   // likewise, and `done` waits for the chains as with O_DIRECT
};

// What a read does with bytes that nobody has written.
enum class Holes {
  kZeros,
  kRefuse,  // ENODATA
};

// What an append has to wait for.
enum class AppendMode {
  kBuffered,     // for nothing, unless there is too much that waits already
  kMoreFollows,  // the same, and the next append is the rest of the same write(2)
  kPlaced,       // for its place
};
struct Appended {
  static constexpr uint64_t kUnplaced = UINT64_MAX;
  size_t length = 0;
  uint64_t offset = kUnplaced;
};

enum class SeekFor { kData, kHole };

class Client {
 public:
  // Uses `reactors` (at least one, outliving the client), or makes its own thread when empty.
  static Result<std::shared_ptr<Client>> create(Options options,
                                                std::vector<Reactor*> reactors = {});
  virtual ~Client() = default;

  // One metadata operation. `body` is a serialized fs3.meta.*Request *without* its header field;
  // `caller` a serialized fs3.meta.Caller. The client prepends the header (field 1) with client id,
  // a new request id and umask; a repeated attempt keeps the request id, so the service applies it
  // once.
  virtual void meta_call(uint16_t method, std::string caller, uint32_t umask, std::string body,
                         MetaCallback done) = 0;

  // Under which the service applies a call once, whoever sends it and how often.
  struct CallName {
    std::string client_id;  // 16 bytes
    uint64_t request_id = 0;
  };
  // Under which the place of an append is asked for, if the append has to wait for it.
  struct AppendName {
    CallName call;  // new_call_name(), or the one of a process before this
    // That process may have asked, as the last append of what it asked for together: then the place
    // is the same as it was.
    bool repeated = false;
  };
  // A name that no call of this client has.
  virtual CallName new_call_name() = 0;
  // As meta_call, under a name that another process may have used for the same call.
  virtual void meta_call_as(const CallName& name, uint16_t method, std::string caller,
                            uint32_t umask, std::string body, MetaCallback done) = 0;

  // From an fs3.meta.OpenReply. `flags` are open(2)'s.
  virtual FileHandle open_handle(const std::string& open_reply, uint32_t flags) = 0;
  // Bytes of [offset, offset + length) as this client sees the file, own unflushed writes included;
  // short at the end of file; holes are zeros. `into` must stay valid until the callback, which
  // gets the number of bytes.
  virtual void read(FileHandle file, uint64_t offset, std::byte* into, size_t length,
                    Function<void(Result<size_t>)> done, Holes holes = Holes::kZeros) = 0;
  // The bytes are copied or kept (`keep`), so the caller's memory is free when `done` runs.
  // Buffered writes answer at once; a write-back error is reported by the next flush, fsync or
  // close of every handle that was open.
  virtual void write(FileHandle file, uint64_t offset, Buffer data, WriteAt at,
                     Function<void(Result<size_t>)> done) = 0;
  // To the end of the file, whoever else appends to it: never over the bytes of somebody else, and
  // whole at its place (append.h). The handle need not be open for appending.
  virtual void append(FileHandle file, Buffer data, AppendMode mode, AppendName name,
                      Function<void(Result<Appended>)> done) = 0;
  // As SEEK_DATA and SEEK_HOLE of lseek(2): the first byte at or after `offset` that is data, or
  // not (the end of the file is a hole). ENXIO at or beyond the end, and when no data follows.
  virtual void seek(FileHandle file, uint64_t offset, SeekFor what,
                    Function<void(Result<uint64_t>)> done) = 0;
  // As fallocate(2) with these flags: 0 or KEEP_SIZE (space for the range: ENOSPC when the cluster
  // cannot hold it now; nothing is reserved), PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE with or without
  // KEEP_SIZE (both give whole chunks back and write zeros to the rest). Other clients see it when
  // `done` runs. EOPNOTSUPP for other flags.
  virtual void fallocate(FileHandle file, uint32_t mode, uint64_t offset, uint64_t length,
                         Function<void(Status)> done) = 0;
  // As copy_file_range(2): at most `length` bytes, fewer at the end of `from`, and as many as suits
  // one call. The bytes pass through this process, not through the caller; holes are not filled,
  // and made where there was data. EINVAL when the ranges of one file overlap.
  virtual void copy_range(FileHandle from, uint64_t from_offset, FileHandle to, uint64_t to_offset,
                          uint64_t length, Function<void(Result<uint64_t>)> done) = 0;
  // Sends what is buffered and waits for the chains to acknowledge it.
  virtual void flush(FileHandle file, Function<void(Status)> done) = 0;
  // flush, then settle length and times with the metadata service (durable: on stable storage).
  virtual void fsync(FileHandle file, bool durable, Function<void(Status)> done) = 0;
  // fsync, but for times: where the length is durable already, the service is told of what was
  // written, and its log is not waited for.
  virtual void fdatasync(FileHandle file, Function<void(Status)> done) = 0;
  // fsync's work, and the end of the session. The handle is dead afterwards whatever the status.
  virtual void close(FileHandle file, Function<void(Status)> done) = 0;
  // Before a change that earlier writes of this client must not follow (a truncate, times set by
  // hand): sends what is buffered for the inode, whoever wrote it, and returns when the service has
  // heard of it. Errors of buffered writes stay with the handles that were open; here they count
  // only when the write may still arrive. Nothing to do when the inode is not open.
  virtual void settle(uint64_t inode, Function<void(Status)> done) = 0;
  // fsync of every file that is open here: syncfs(2). `done` gets the first error.
  virtual void sync_all(Function<void(Status)> done) = 0;
  // After a truncate by SETATTR: forget buffered bytes beyond, adopt the size and the inode's
  // version. (Call settle before SETATTR.)
  virtual void note_truncated(uint64_t inode, uint64_t size, uint64_t version) = 0;
  // What this client knows better than attributes of that version of the inode: its own unsettled
  // writes, or a later answer of the service that overtook them. False: nothing, or the inode is
  // not open here. `mtime_ns` 0: not known.
  virtual bool local_size(uint64_t inode, uint64_t version, uint64_t* size, int64_t* mtime_ns) = 0;
  // Bytes that were written here and are not settled: at most so much more than the service knows
  // of is stored.
  virtual uint64_t unsettled_bytes(uint64_t inode) = 0;
  // The newest that the service said of an open file.
  struct Told {
    uint64_t version, size;
    int64_t mtime_ns;  // 0: not known
  };
  virtual Told last_told(const FileHandle& file) const = 0;
  virtual uint64_t handle_inode(const FileHandle& file) const = 0;

  // Servers only (needs capability_key): whole-chunk work for truncate, removal and checks.
  // `layout` is a serialized fs3.Layout.
  virtual void truncate_chunks(uint64_t inode, std::string layout, uint64_t old_size,
                               uint64_t new_size, Function<void(Status)> done) = 0;
  virtual void remove_chunks(uint64_t inode, std::string layout, uint64_t size,
                             Function<void(Status)> done) = 0;
  // What storage holds for the inode: the end of the last byte, and how many bytes there are.
  struct Measure {
    uint64_t length = 0, stored = 0;
  };
  virtual void measure(uint64_t inode, std::string layout,
                       Function<void(Result<Measure>)> done) = 0;

  // Chunk updates are sent until then and no later, on CLOCK_BOOTTIME; never called: without end.
  // Where several metadata services share the work, another one takes over what this one had begun
  // when its lease is over, and the two must not overlap.
  virtual void set_server_lease(int64_t until_boottime_ns) = 0;

  // Newer routing (serialized fs3.RoutingInfo), pushed by a watcher; older versions are ignored.
  virtual void update_routing(std::string_view routing) = 0;
  virtual std::string routing() const = 0;

  struct Statistics {
    uint64_t meta_calls, meta_retries, reads, read_bytes, writes, write_bytes, data_retries,
        routing_refreshes;
    uint64_t dirty_bytes, inflight;
  };
  virtual Statistics statistics() const = 0;
  // Ends open calls with ESHUTDOWN, stops own threads. Idempotent.
  virtual void shutdown() = 0;
};

}  // namespace fs3::client
