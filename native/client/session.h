// What an open handle means to the metadata service: settling length and times (SYNC, CLOSE),
// renewing capabilities, and the keep-alive of everything that is open.
#pragma once

#include <memory>

#include "base/function.h"
#include "base/status.h"
#include "client/client.h"
#include "client/file.h"

namespace fs3::client {

class Core;
class Lane;

// As Client::fsync and Client::close. Both flush first; an error of the flush wins over one of the
// service, and closing goes on after it, so that the session ends.
void fsync_file(std::shared_ptr<Core> core, FileHandle handle, bool durable,
                Function<void(Status)> done);
// As Client::fdatasync.
void fdatasync_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done);
void close_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done);

// As Client::sync_all.
void sync_all(std::shared_ptr<Core> core, Function<void(Status)> done);

// As Client::settle.
void settle_file(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
                 Function<void(Status)> done);

// A fresh capability for the file, by SYNC of an open session, or by a new OPEN: for a file that is
// only read, and for a session that the service has ended because this client was silent too long
// (a suspended machine). One renewal per right at a time; `done` on the lane.
void renew_capability(const std::shared_ptr<Core>& core, Lane& lane, std::shared_ptr<OpenFile> file,
                      Right right, Function<void(Status)> done);

// Every few seconds, while handles are open: tells the service that this client lives and which
// inodes it holds open for reading. Ends when the client closes.
void start_keepalive(std::shared_ptr<Core> core);

}  // namespace fs3::client
