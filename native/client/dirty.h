// DirtyChunks: the bytes of one file that were written here and are not yet acknowledged by their
// chains. A plain data structure: no clock, no network, no lock (the file's mutex guards it).
//
// Invariants:
//  1. Waiting extents of a chunk do not overlap; a newer write cuts the older ones.
//  2. At most one run per chunk is in flight, and its bytes never change.
//  3. A read sees waiting bytes before those in flight before those in storage.
//  4. An extent's epoch is the oldest of all writes whose bytes it holds *or replaced*. So when
//     nothing of epoch <= e is left, every write made before e ended is on its chain or was
//     overwritten by bytes that are. (Without "or replaced", a flush could return while an
//     overwritten byte is neither old nor new on any disk.)
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/buffer.h"

namespace fs3::client {

// A contiguous piece of one chunk, on its way to the chain.
struct Run {
  uint64_t chunk = 0;
  uint32_t offset = 0;  // in the chunk
  uint32_t length = 0;
  std::vector<Buffer> pieces;
  bool buffered = false;  // some of it was acknowledged to its writer before it was sent
};

// Bytes [offset, offset + length) of a read that are not dirty here.
struct Gap {
  uint64_t offset = 0;
  uint64_t length = 0;
};

class DirtyChunks {
 public:
  explicit DirtyChunks(uint32_t chunk_size) : chunk_size_(chunk_size) {}

  // Takes the bytes: shares the buffer when `keep`, else copies. A chunk written up to its end is
  // wanted at once.
  void add(uint64_t offset, const Buffer& data, bool keep, bool buffered);
  // Copies what is dirty into `into` (file bytes from `offset`) and returns the rest, in order.
  std::vector<Gap> read(uint64_t offset, std::span<std::byte> into) const;

  // Some byte of [offset, offset + length) is dirty.
  bool overlaps(uint64_t offset, uint64_t length) const;
  // What is dirty of [offset, end): in order, not empty, not adjacent.
  std::vector<Gap> ranges(uint64_t offset, uint64_t end) const;

  // Ends the current epoch and wants everything of it sent. Returns the epoch.
  uint64_t want_all();
  // The same for chunks first..last only.
  uint64_t want(uint64_t first, uint64_t last);
  // The next run of a wanted chunk that has none in flight; it is in flight from now on.
  std::optional<Run> take();
  // Nothing of this chunk is sent until finish(): somebody removes it. False when some of it is
  // dirty or in flight.
  bool claim(uint64_t chunk);
  // The run in flight of this chunk (or the claim) has ended, whatever the outcome.
  void finish(uint64_t chunk);

  // Nothing of this epoch or older is left.
  bool settled(uint64_t epoch) const { return epochs_.empty() || epochs_.begin()->first > epoch; }
  bool settled(uint64_t epoch, uint64_t first, uint64_t last) const;

  // Forgets waiting bytes from `size` on. What is in flight stays.
  void trim(uint64_t size);

  uint64_t bytes() const { return bytes_; }
  size_t extents() const { return extents_; }
  bool empty() const { return bytes_ == 0; }
  // One past the highest dirty byte; 0 when there is none.
  uint64_t end() const;

 private:
  struct Extent {
    Buffer data;
    uint64_t epoch = 0;
    bool growable = false;  // ours alone, may be written in place and up to its capacity
    bool buffered = false;
  };
  struct Flying {
    uint32_t offset = 0;
    uint32_t length = 0;
    std::vector<Extent> extents;
  };
  struct Chunk {
    std::map<uint32_t, Extent> waiting;
    std::optional<Flying> flying;
    uint64_t wanted_epoch = 0;  // extents up to this one are to be sent
    bool queued = false;        // is in ready_
  };

  void add_to_chunk(uint64_t index, uint32_t offset, Buffer data, bool keep, bool buffered);
  bool write_in_place(Chunk& chunk, uint32_t offset, const Buffer& data, bool buffered);
  bool append(Chunk& chunk, uint32_t offset, const Buffer& data, bool buffered);
  // Removes [begin, end) from the waiting extents; the oldest epoch among those it touched.
  uint64_t cut(Chunk& chunk, uint32_t begin, uint32_t end);
  void insert(Chunk& chunk, uint32_t offset, Extent extent);
  void erase(Chunk& chunk, std::map<uint32_t, Extent>::iterator where);
  void lower_epoch(Extent& extent, uint64_t epoch);
  void queue_if_ready(uint64_t index, Chunk& chunk);
  uint64_t oldest(const Chunk& chunk) const;
  void count(uint64_t epoch, int change);

  const uint32_t chunk_size_;
  uint64_t epoch_ = 1;
  uint64_t bytes_ = 0;
  size_t extents_ = 0;
  std::map<uint64_t, Chunk> chunks_;
  std::map<uint64_t, uint32_t> epochs_;  // extents per epoch, waiting and in flight
  std::deque<uint64_t> ready_;
};

}  // namespace fs3::client
