// ClusterFs: the file system of a cluster under a FUSE session. Node ids are inode ids; the session
// translates that of the root, when another directory is mounted.
//
//   FUSE request ── ops_*.cc: unpack, one reply ──> client::Client ──> metadata service, chains
//
// One handler per operation, grouped by noun: ops_entry.cc (names), ops_attr.cc (attributes),
// ops_file.cc (open, close, sync), ops_data.cc (read, write), ops_space.cc (holes, copies),
// ops_dir.cc (listings), ops_xattr.cc (extended attributes, ACLs), ops_ioctl.cc (chattr),
// ops_ioctl_3fs.cc (what 3FS's tools ask), ops_virtual.cc (3fs-virt, which is in no cluster),
// ops_rings.cc (USRBIO).
//
// Caching rules (README.md has the reasons):
//  1. Names and attributes are believed by the kernel as long as the lease of the reply says, and
//     never longer than Options::ttl_max_ns.
//  2. Attributes of an inode with unsettled local writes get the local size and mtime.
//  3. Pages survive from open to open while data version, size and mtime are unchanged.
//  4. close(2) returns after the data is on its chains and the length is settled, so that a later
//     open anywhere sees it; errors of earlier buffered writes are returned there.
//
// Thread safety: handlers run on every reactor at once; state is in the tables, each with its own
// lock, none held across a call to the client or a reply.
#pragma once

#include <memory>
#include <string>

#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"
#include "client/client.h"
#include "fuse/access_times.h"
#include "fuse/attributes.h"
#include "fuse/callers.h"
#include "fuse/directory.h"
#include "fuse/dirent.h"
#include "fuse/files.h"
#include "fuse/filesystem.h"
#include "fuse/nodes.h"
#include "meta.pb.h"
#include "usrbio/server.h"

namespace fs3::fuse {

namespace pb = proto::meta;

// Registered with a process before.
struct KeptRing {
  usrbio::RingServer::Name name;
  std::vector<int> descriptors;
};

struct ClusterFsOptions {
  int64_t ttl_max_ns = kNsPerSecond;
  uint64_t root_inode = FUSE_ROOT_ID;               // of the directory that is mounted
  bool direct_io = false;                           // every open bypasses the page cache
  AtimePolicy atime = AtimePolicy::kRelative;       // kAlways implies direct_io: reads are seen
  bool squash_root = false;                         // the root of this host is nobody
  Reactor* timers = nullptr;                        // outlives the file system; null: no timers
  int64_t shutdown_timeout_ns = 60 * kNsPerSecond;  // for what is still open at the end
  bool write_back = true;                           // writes may be answered before they are sent
  std::shared_ptr<Handover> handover;               // null: nobody takes this mount over
  std::vector<Reactor*> reactors;  // for rings of shared memory, outlive it; empty: there are none
  int keeper = -1;                 // who is told of rings (ring_keeper.h); -1: nobody
  std::vector<KeptRing> kept;      // what it has of the process before
};

class ClusterFs : public Filesystem {
 public:
  ClusterFs(std::shared_ptr<client::Client> client, ClusterFsOptions options);

  // After a takeover: opens again what the process before had open, before it returns.
  void attached(Session& session) override;
  void handle(RequestPtr request) override;
  // Closes all files, so that what was written is settled, then shuts the client down.
  void shutdown() override;

  void settle_all() override;

  struct Counts {
    size_t open_files, nodes;
  };
  Counts counts() { return {files_.size(), nodes_.size()}; }

 private:
  using Raw = Function<void(RequestPtr, std::string)>;

  // ---- ops_entry.cc
  void lookup(RequestPtr request);
  void forget(RequestPtr request);
  void mknod(RequestPtr request);
  void mkdir(RequestPtr request);
  void symlink(RequestPtr request);
  void readlink(RequestPtr request);
  void link(RequestPtr request);
  void remove(RequestPtr request);
  void rename(RequestPtr request);
  // ---- ops_attr.cc
  void getattr(RequestPtr request);
  void setattr(RequestPtr request);
  void do_setattr(RequestPtr request);
  void statx(RequestPtr request);
  void statfs(RequestPtr request);
  // ---- ops_xattr.cc
  void setxattr(RequestPtr request);
  void getxattr(RequestPtr request);
  void listxattr(RequestPtr request);
  void removexattr(RequestPtr request);
  void attribute_changed(RequestPtr request, pb::Method method, const std::string& body);
  // ---- ops_ioctl.cc
  void ioctl(RequestPtr request);
  void with_flags(RequestPtr request, Function<void(RequestPtr, uint32_t)> then);
  void set_flags(RequestPtr request, uint32_t flags);
  // ---- ops_ioctl_3fs.cc
  void ioctl_3fs(RequestPtr request);
  void settle_3fs(RequestPtr request);
  void link_3fs(RequestPtr request);
  void move_3fs(RequestPtr request);
  void remove_3fs(RequestPtr request);
  uint64_t inode_of_root(uint64_t inode) const;
  void forget_entry(uint64_t parent, const std::string& name);
  // ---- ops_rings.cc
  class RingPort;
  struct Rings {
    Rings();
    ~Rings();
    std::unique_ptr<RingPort> port;
    std::unique_ptr<usrbio::RingKeeper> keeper;
    std::unique_ptr<usrbio::RingServer> server;  // null: this mount has no rings
  };
  void start_rings();
  // When the files of the process before are open again: what it had taken is done again.
  void restore_rings();
  void pause_rings();
  void end_rings();
  void handle_iovs(RequestPtr request);
  void lookup_iov(RequestPtr request);
  void getattr_iov(RequestPtr request);
  void readlink_iov(RequestPtr request);
  void register_iov(RequestPtr request);
  void unregister_iov(RequestPtr request);
  void list_iovs(RequestPtr request);
  void register_ring_file(RequestPtr request);
  // ---- ops_file.cc
  void open(RequestPtr request);
  void do_open(RequestPtr request);
  void opened(RequestPtr request, std::string raw);
  void create(RequestPtr request);
  void created(RequestPtr request, std::string raw);
  void made(RequestPtr request, const pb::OpenReply& reply, const std::string& raw);
  void flush(RequestPtr request);
  void fsync(RequestPtr request);
  void fsyncdir(RequestPtr request);
  void syncfs(RequestPtr request);
  void release(RequestPtr request);
  bool make_handle(const pb::OpenReply& reply, const std::string& raw, uint32_t flags,
                   fuse_open_out* out);
  // ---- ops_data.cc
  void read(RequestPtr request);
  void write(RequestPtr request);
  void do_write(RequestPtr request, FilePtr file);
  void append(RequestPtr request, FilePtr file);
  void written_out(RequestPtr request, const FilePtr& file, size_t length);
  // ---- ops_space.cc
  void fallocate(RequestPtr request);
  void do_fallocate(RequestPtr request, const FilePtr& file);
  void lseek(RequestPtr request);
  void do_lseek(RequestPtr request, const FilePtr& file);
  void copy_file_range(RequestPtr request);
  void do_copy(RequestPtr request, const FilePtr& from, const FilePtr& to);
  void without_privileges(RequestPtr request, const FilePtr& file, Function<void(RequestPtr)> then);
  // ---- ops_dir.cc
  void opendir(RequestPtr request);
  void readdir(RequestPtr request);
  void releasedir(RequestPtr request);
  void serve(DirectoryPtr directory, RequestPtr request);
  void fetch(DirectoryPtr directory, uint64_t after, bool attributes, RequestPtr waiting);
  void fetch_ahead(const DirectoryPtr& directory, const PagePtr& page, size_t position);
  void fetched_ahead(const DirectoryPtr& directory, const std::shared_ptr<DirectoryPage>& page,
                     Result<std::string> reply);
  size_t pack(Directory& directory, const DirectoryPage& page, uint64_t offset, bool plus,
              std::byte* space, size_t size, size_t* position);
  bool pack_entry(Directory& directory, const DirectoryPage& page, const pb::DirEntry& entry,
                  bool plus, DirentPacker& packer);

  // ---- ops_virtual.cc
  bool is_virtual(const Request& request) const;
  void handle_virtual(RequestPtr request);
  void remove_linked(RequestPtr request);
  void walk(RequestPtr request, uint64_t parent, std::string path);
  void remove_moved(RequestPtr request);
  void remove_all(RequestPtr request, uint64_t parent, const std::string& name, bool directory,
                  Function<void(RequestPtr)> then);

  // ---- takeover.cc
  void restore(const Handover::OpenHandle& handle, Function<void(Status)> done);
  void reopen(const Handover::OpenHandle& handle, Function<void(Status)> done);
  bool add_restored(const Handover::OpenHandle& handle, const std::string& raw);
  // Sent again by the kernel, and the process before had sent its metadata call.
  bool is_repeated(const Request& request) const;
  // What an open gave under the name of the process before is of no use here: opens once more.
  void open_again(RequestPtr request, uint64_t inode, uint32_t flags, Raw then);
  // Around a settlement of a file: for whoever takes the mount over. The second is called when it
  // succeeded, and returns what is owed to the caller for bytes that died with the process before.
  uint32_t written_before(const File& file) const;
  Status settled_now(File& file, uint32_t written);

  // ---- cluster_fs.cc: what the operations share
  // One metadata call. `then` gets the reply's bytes; a failure answers the request with its errno.
  void call(RequestPtr request, pb::Method method, const std::string& body, uint32_t umask,
            Raw then);
  // The same for a reply of type Reply: one that does not decode answers EIO.
  template <typename Reply, typename Body, typename Then>
  void call_for(RequestPtr request, pb::Method method, const Body& body, Then then,
                uint32_t umask = 0) {
    call(std::move(request), method, body.SerializeAsString(), umask,
         [then = std::move(then)](RequestPtr request, const std::string& raw) mutable {
           Reply reply;
           if (!reply.ParseFromString(raw)) return reply_error(std::move(request), EIO);
           then(std::move(request), reply);
         });
  }
  // Brings what was written here to the service, then goes on; at once when nothing is unsettled.
  // The errors of earlier buffered writes stay with the handles that report them.
  void settled(RequestPtr request, uint64_t inode, Function<void(RequestPtr)> then);
  // Takes setuid and setgid away from an inode that has them. `session`: of the handle that is
  // written through; without it the caller must own the file or be allowed to write.
  void kill_privileges(RequestPtr request, uint64_t inode, const std::string& session,
                       Function<void(RequestPtr)> then);
  void reply_status(RequestPtr request, const Status& status);

  // A settlement of the file has been answered: older attributes count no more.
  void note_settled(const File& file);
  int64_t ttl_ns(const pb::Lease& lease, int64_t age_ns = 0) const;
  // Attributes that are believed for `ttl` nanoseconds from now, by the kernel and by getxattr.
  void told(const pb::Attr& attr, int64_t ttl, uint64_t lookups);
  void note_times(const pb::Attr& attr);
  void fill_attr(const pb::Attr& attr, fuse_attr* out);
  void fill_entry(const pb::Attr& attr, int64_t ttl, fuse_entry_out* out);
  void reply_entry(RequestPtr request, const pb::Attr& attr, const pb::Lease& lease);
  void reply_attr(RequestPtr request, const pb::Attr& attr, const pb::Lease& lease);

  const std::shared_ptr<client::Client> client_;
  const ClusterFsOptions options_;
  Session* session_ = nullptr;  // set before the first request
  Callers callers_;
  NodeTable nodes_;
  AccessTimes access_times_;
  FileTable files_;
  DirectoryTable directories_;
  Rings rings_;  // uses all of the above
};

}  // namespace fs3::fuse
