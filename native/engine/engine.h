// The chunk engine of one disk: committed and pending versions of chunks, for any number of
// targets.
//
// A chunk has at most one committed version and at most one pending version (committed + 1, or any
// newer one after a whole replacement). Bytes live in preallocated block files by power-of-two size
// class (4 KiB .. 64 MiB), written copy-on-write (an append inside a block goes in place, past the
// committed length; a small update is a row of the metadata first, patches.h); all chunk metadata
// lives in memory and in RocksDB. One RocksDB per disk, so one synced batch commits for all targets
// (group commit).
//
// Thread safety: all calls on the reactor's thread; callbacks run there too. Data I/O is io_uring
// on the reactor, commits are grouped on a thread of their own. Durability: when stage()
// calls back with ok, the pending version survives power loss. When commit() calls back with ok, so
// does the commit. A failed write or sync is final: `failed()` turns true and every later call
// fails with EIO. Integrity: CRC32C per 4 KiB block of each version, kept with the metadata; read()
// verifies what it returns and answers kChecksumMismatch (and quarantines the block) rather than
// bad bytes. The destructor waits for I/O in progress and drops callbacks not yet made; it must not
// run inside a callback.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"
#include "engine/types.h"

namespace fs3::engine {

struct Options {
  std::string directory;   // of the disk; holds superblock, meta/, blocks/
  std::string cluster_id;  // 16 bytes; a directory of another cluster is refused with both ids in
                           // the detail
  uint32_t node_id = 0;    // likewise
  bool create = false;     // make the directory when it does not exist yet
  uint64_t capacity_bytes = 0;  // 0 = what the file system has
};

struct StageRequest {
  TargetId target = 0;
  ChunkId chunk;
  uint64_t version = 0;  // the version this update makes
  uint32_t chain_version = 0;
  UpdateKind kind = UpdateKind::kWrite;
  uint32_t offset = 0;      // kWrite
  uint32_t length = 0;      // kWrite, kReplace: bytes of data; kTruncate: the new length
  Buffer data;              // kWrite, kReplace; 4 KiB aligned address
  uint32_t checksum = 0;    // CRC32C of data, compared before anything is written
  UpdateIdentity identity;  // stored with the pending version and, at commit, as the dedup row
  // kTruncate: keeps the block it has, also where a smaller one would do, so that it needs no room
  // on a full disk.
  bool spares_blocks = false;
  bool commit =
      false;  // becomes the committed version in the same durable batch (the tail of a chain)
  // kReplace without data: the bytes of this version are damaged wherever they are. `length` and
  // `checksum` are those of the whole chunk; every read of it is kChecksumMismatch. kTruncate to
  // the length that is there: the bytes stay as they are, and as damaged.
  bool lost = false;
};

struct StageResult {
  uint32_t chunk_length = 0;  // of the pending version
  uint32_t checksum = 0;      // CRC32C of the whole pending version
};

struct ReadResult {
  Buffer data;  // may be shorter than asked: the chunk ends
  uint32_t chunk_length = 0;
  uint64_t version = 0;
  uint32_t chain_version = 0;  // under which the version was made
  uint32_t checksum = 0;       // CRC32C of the whole version
};

class Engine {
 public:
  // Opens or creates, recovers, loads all chunk metadata. Errors name the file that is wrong.
  static Result<std::unique_ptr<Engine>> open(Reactor& reactor, Options options);
  virtual ~Engine() = default;

  virtual Status create_target(TargetId target,
                               uint32_t chain_id) = 0;  // durable; EEXIST when it is there
  // kBusy while an update of it is in progress, or its patches are put into their blocks: ask
  // again.
  virtual Status erase_target(TargetId target) = 0;
  virtual std::vector<TargetInfo> targets() const = 0;

  // In memory, immediate. Chunks come ordered by id, strictly after `after` when given.
  virtual std::optional<ChunkState> get(TargetId target, ChunkId chunk) const = 0;
  virtual std::vector<ChunkState> list(TargetId target, std::optional<ChunkId> after,
                                       size_t limit) const = 0;
  // Committed chunks only.
  virtual InodeChunks chunks_of_inode(TargetId target, uint64_t inode) const = 0;
  // Touched longest ago first; about kDedupRowsMax at most.
  virtual std::vector<DedupRow> dedup_rows(TargetId target) const = 0;

  // Writes a pending version, replacing another pending one. kChecksumMismatch: bytes that it keeps
  // of the committed version are damaged; kBadRequest: a field, or data that is not what `checksum`
  // says. A kWrite whose base is not there
  // reads as zeros up to offset. `version` is the caller's business: a new chunk may begin with any
  // number, and kReplace or kRemove with commit = true take the place of whatever is there, also of
  // a newer version. kRemove with commit = true deletes the chunk with its pending version; ok when
  // there is none.
  virtual void stage(StageRequest request, Function<void(Result<StageResult>)> done) = 0;
  // Makes the pending version `version` the committed one, and its identity the dedup row of its
  // (client, channel), unless that holds a higher sequence; an identity of zeros makes no row.
  // `synced` false: not yet durable when called back (it becomes so with any later sync); the chain
  // uses it where the successor already is durable. kRemove versions delete the chunk at commit.
  virtual void commit(TargetId target, ChunkId chunk, uint64_t version, bool synced,
                      Function<void(Status)> done) = 0;
  // Forgets the pending version.
  virtual void discard(TargetId target, ChunkId chunk, Function<void(Status)> done) = 0;
  // Deletes chunk whatever its state (resync: the predecessor does not have it).
  virtual void drop(TargetId target, ChunkId chunk, Function<void(Status)> done) = 0;
  // `replace`: all other rows of the target go. Otherwise the higher sequence of a channel stays.
  // `rows` come in the order in which they were touched.
  virtual void put_dedup_rows(TargetId target, std::vector<DedupRow> rows, bool replace,
                              Function<void(Status)> done) = 0;

  // Bytes of the committed version (pending = true: of the pending one). Missing chunk: empty data,
  // chunk_length 0, version 0.
  virtual void read(TargetId target, ChunkId chunk, uint32_t offset, uint32_t length, bool pending,
                    Function<void(Result<ReadResult>)> done) = 0;

  virtual Space space() const = 0;
  // True when the disk certainly takes all these new blocks, on top of what it holds now: space()
  // is a sum, and 20 free MiB in small blocks do not take a chunk of 1 MiB. False also begins to
  // free what commits hold that are not durable yet. Walks the list of block groups (one per 16
  // MiB).
  virtual bool has_room(const BlockCounts& blocks) = 0;
  virtual bool failed() const = 0;
  virtual Statistics statistics() const = 0;

  // Compares memory, allocator and stored metadata: no block in two chunks, used + free + bad =
  // total, nothing leaked. Walks everything, blocks the reactor: for tests and fsck. kBusy while
  // anything is in progress.
  virtual Status audit() = 0;
};

}  // namespace fs3::engine
