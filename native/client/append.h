// O_APPEND: where appended bytes go, when several clients append to one file.
//
// The place of an append is given out by the metadata service (APPEND): it reserves the next bytes
// behind the end of the file and behind everything it has given out before. So no two appends ever
// have the same place, on whichever mounts, and each lies whole at its own.
//
// One call per append would cost a round trip each. So appends are collected here without a place,
// and one reservation serves all that were collected: when the write-back timer fires, when there
// are enough of them, or when somebody has to know (a read behind the known end, a write at an
// offset, flush, fsync, close). A lone appender pays one more small call for each batch that it
// writes back anyway. The alternative, a lease on the end of the file, would save that call, and
// cost a recall, the flush of the holder and a settlement whenever the appender changes, and half a
// minute of waiting when a holder dies; places that are given out need neither recall nor fencing.
//
// What follows from it:
//  1. Until they have their place, appends count to the size that is seen here, behind everything
//     else; another client's append may come in front of them.
//  2. A reservation is for ever. When its bytes cannot be written, or their client dies first,
//     zeros stay in their place as soon as somebody else's append lies behind it. A reader may see
//     such zeros for a moment, when a later append reaches the chains before an earlier one.
//  3. The kernel sends a write(2) of up to 1 MiB in two pieces when its memory is not aligned to
//     pages. A piece that may have a second one holds up the reservation until that comes (it comes
//     at once: the writer holds the kernel's lock of the inode), at most kPieceWaitNs.
//  4. A reservation goes by the name of its last append. Whoever repeats that append in another
//     process (fuse/handover.h) asks under the same name, is told the same end, and so knows its
//     place, whatever else was reserved with it. It is asked for alone.
#pragma once

#include <cstdint>
#include <memory>

#include "base/buffer.h"
#include "base/function.h"
#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;
struct OpenFile;

// As Client::append.
void append_file(const std::shared_ptr<Core>& core, const FileHandle& handle, Buffer data,
                 AppendMode mode, Client::AppendName name, Function<void(Result<Appended>)> done);

enum class PlaceWhen {
  kWhole,  // not between the pieces of one write(2)
  kNow,    // no write(2) is in progress
};

// `done` when everything that was appended before this call has its place (or has failed, which the
// handles tell): inside the call when nothing waits.
void place_appends(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                   PlaceWhen when, Function<void()> done);

}  // namespace fs3::client
