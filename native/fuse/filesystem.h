// Filesystem: what a session serves. One function per request; an implementation dispatches on the
// opcode.
//
// Thread safety: handle() is called from every reactor of the session, concurrently. It must not
// block; it may keep the request and reply later, from any thread. Ownership: the filesystem
// outlives the session.
#pragma once

#include "fuse/request.h"

namespace fs3::fuse {

class Session;

class Filesystem {
 public:
  virtual ~Filesystem() = default;
  // The session is mounted and negotiated; it may be used for notifications from now on.
  virtual void attached(Session& session) { (void)session; }
  // Opcodes with a known header (kernel.h) except INIT, DESTROY and INTERRUPT, which the session
  // answers. FORGET and BATCH_FORGET end with reply_nothing().
  virtual void handle(RequestPtr request) = 0;
  // Sends and settles what was written; everything stays open. Before another process takes over.
  // May block.
  virtual void settle_all() {}
  // Closes what is open and answers every request that is still held. Called once, from the
  // controlling thread, when the kernel has let go of the mount or is about to; the reactors still
  // run. May block.
  virtual void shutdown() {}
};

}  // namespace fs3::fuse
