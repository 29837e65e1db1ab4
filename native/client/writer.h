// Writes: buffered per file, sent chunk by chunk, acknowledged by chains.
//
// What holds at any moment, and why no acknowledged byte is lost or goes back:
//  1. Per chunk of a file there is one update in flight; the next one starts when its outcome is
//     known. So updates of one chunk reach the chain in the order they were made here.
//  2. All attempts of one update carry one identity. An attempt whose answer was lost is recognised
//     by the chain and answered, not applied again, also after the head changed.
//  3. DUPLICATE_OLD says that the chain has seen a later sequence on this channel. Nobody else uses
//     the channel and (1) holds, so the update's own outcome is lost to us, and nothing later of
//     this client is on the chunk: sending the same bytes again under a fresh identity is a write
//     that happens now, inside the still open call. The end state is that of a single write.
//  4. An update that ends with an error may have been applied, or may still be: the error is
//     reported, and the channel stays with the chunk (identity.h), so that an attempt which arrives
//     late is refused as old instead of overwriting newer bytes.
//  5. A buffered byte that could not be written leaves an error at every handle that was open; the
//     next flush, fsync or close of each reports it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/buffer.h"
#include "base/function.h"
#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;
class Lane;
struct Handle;
struct OpenFile;

// As Client::write, at the offset whatever the handle's flags. `through`: `done` waits for the
// chains.
void write_file(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, Buffer data,
                bool through, Function<void(Result<size_t>)> done);

// As Client::flush: `done` gets the handle's error, once.
void flush_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done);

// As Client::settle's first half: sends what is buffered, whoever wrote it. `done` gets the first
// error of what was sent meanwhile; the handles keep theirs.
void flush_all(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
               Function<void(Status)> done);

// Zeros to where bytes of the file are, through to the chains; `done` on the lane gets the first
// error. REQUIRES: length > 0, offset + length within the size.
void write_zeros(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                 uint64_t offset, uint64_t length, Function<void(Status)> done);

// `done` when what is dirty of the chunk now is sent and answered, well or badly.
void wait_for_chunk(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                    uint64_t chunk, Function<void()> done);

// What was in flight of the chunk (a run, or a claim on it) has ended: wakes those who waited for
// it and sends what comes next.
void chunk_finished(const std::shared_ptr<Core>& core, Lane& lane,
                    const std::shared_ptr<OpenFile>& file, uint64_t chunk);

// A write that ended with this was not applied, and never will be.
bool refused_for_good(const Status& status);

// Sends every run that is wanted and whose chunk has none in flight.
void pump(const std::shared_ptr<Core>& core, Lane& lane, const std::shared_ptr<OpenFile>& file);

// What write and append share.
// Whether the limit of bytes that the file is under lets it take `length` bytes that end at `end`:
// `then` gets EDQUOT where not. Settles the file first when it has taken much since it last did.
// Inside the call where there is no limit.
void ask_quota(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
               uint64_t end, size_t length, Function<void(Status)> then);
// Whether the handle takes a write there. REQUIRES: mutex held.
Status may_write(Handle& handle, uint64_t offset, size_t length);
// All files together have so much to send that writers have to wait.
bool dirty_everywhere(const Core& core);
// Waits for the chains. `done` gets the first error of the chunks it touched. REQUIRES: mutex held.
void wait_through(OpenFile& file, Lane& lane, uint64_t offset, size_t length,
                  Function<void(Result<size_t>)> done);
// Sends what is buffered after a while.
void arm_timer(const std::shared_ptr<Core>& core, Lane& lane,
               const std::shared_ptr<OpenFile>& file);

// Brings Counters::dirty_bytes up to date. REQUIRES: the file's mutex held.
void count_dirty(Core& core, OpenFile& file);

}  // namespace fs3::client
