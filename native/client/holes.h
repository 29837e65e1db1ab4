// Which bytes of a file exist: SEEK_DATA, SEEK_HOLE, and what copies and punches go by.
//
// Data is what storage holds chunks for, up to the length of each chunk, and what is dirty here. So
// a hole is told by the chunk, its end to the byte; zeros that somebody wrote are data. Nothing
// that was acknowledged to anybody is ever called a hole: the dirty bytes are looked at before
// storage is asked (they may get there meanwhile, not come back), and storage counts versions that
// are on their way. What another client has not sent yet is unknown here, as it is to reads.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/function.h"
#include "base/status.h"
#include "client/chunks.h"
#include "client/client.h"
#include "client/dirty.h"

namespace fs3::client {

class Core;
class Lane;
struct OpenFile;

// The chunks of a file from some index on, as storage told them: runs, so a dense file of any
// length takes a few words per chain. A value; no thread safety.
class ChunkMap {
 public:
  ChunkMap(uint32_t stripe, uint32_t chunk_size) : stripe_(stripe), chunk_size_(chunk_size) {}
  // What the chain of one stripe position holds.
  void add(ChunkRunPage page);

  // Nothing is known about chunks from here on.
  uint64_t through() const { return through_; }
  // The first chunk with this index or a higher one, and its length in bytes.
  struct Found {
    uint64_t index = 0;
    uint32_t length = 0;
  };
  std::optional<Found> next(uint64_t index) const;
  // The first index from `index` on whose chunk is not whole, at most through().
  uint64_t end_of_whole(uint64_t index) const;

 private:
  const uint32_t stripe_;
  const uint32_t chunk_size_;
  uint64_t through_ = UINT64_MAX;
  std::vector<std::vector<ChunkRun>> positions_;  // a non-empty list of runs each
};

// Asks the chains for the chunks first..last of the file, at most `runs_max` runs of each chain.
// `done` on the lane.
void query_chunks(const std::shared_ptr<Core>& core, Lane& lane,
                  const std::shared_ptr<OpenFile>& file, uint64_t first, uint64_t last,
                  uint32_t runs_max, Function<void(Result<ChunkMap>)> done);

// The first bytes of [offset, end) that are data, with nothing missing in between: begins at
// `offset` or later, ends where a hole begins or at `end`. Length 0: all of it is a hole.
// `begin_only`: the length may be too short. REQUIRES: offset <= end.
void next_data(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
               uint64_t offset, uint64_t end, bool begin_only, Function<void(Result<Gap>)> done);

// As Client::seek.
void seek_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint64_t offset,
               SeekFor what, Function<void(Result<uint64_t>)> done);

}  // namespace fs3::client
