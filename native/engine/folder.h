// Folder: puts patches into the blocks they lie over, many chunks at a time, in the background.
//
// One pass takes chunks in the order in which they got their first patch, writes the blocks of 4
// KiB that their patches hold in place, makes that durable with one flush for each block file, and
// removes the rows. Updates of those chunks wait meanwhile.
//
// Why writing in place is safe here, as it is not for an update: every byte that is written is also
// in a row that is durable and that the present version lies over its block. Whatever the crash
// leaves in the block, the rows cover it, until the batch that removes them, which follows the
// flush. Only versions before the present one could see the difference: one that a read still
// holds, or one that power loss would bring back because the commit of the present one is not
// durable. A chunk whose block is held by such a version, or that has a pending one, is passed
// over.
//
// Thread safety: the reactor's thread.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "engine/chunk_table.h"
#include "engine/patches.h"

namespace fs3::engine {

class ChunkEngine;

class Folder {
 public:
  Folder(ChunkEngine& engine, PatchLimits limits) : engine_(engine), limits_(limits) {}

  const PatchLimits& limits() const { return limits_; }
  // What rows count themselves in.
  const std::shared_ptr<uint64_t>& total() const { return total_; }
  bool full() const { return *total_ >= limits_.bytes_max; }
  // The chunk's committed version is new.
  void committed(const ChunkKey& key);

 private:
  struct Fold {
    ChunkKey key;
    VersionRef version;
  };
  struct Pass;

  bool wanted() const;
  void look();
  void run();
  bool ready(const ChunkKey& key) const;
  void enqueue(const ChunkKey& key);
  void write(const std::shared_ptr<Pass>& pass, const Fold& fold);
  void written(const std::shared_ptr<Pass>& pass, const Status& status);
  void finish(const std::shared_ptr<Pass>& pass);
  void remove_rows(const std::shared_ptr<Pass>& pass, const Fold& fold);
  void end();

  ChunkEngine& engine_;
  const PatchLimits limits_;
  const std::shared_ptr<uint64_t> total_ = std::make_shared<uint64_t>(0);
  std::deque<ChunkKey> queue_;
  std::set<ChunkKey> queued_;
  bool long_chunk_ = false;  // some chunk has half of the rows it may have
  bool running_ = false;
};

}  // namespace fs3::engine
