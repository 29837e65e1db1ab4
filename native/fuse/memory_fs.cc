#include "fuse/memory_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "fuse/attributes.h"
#include "fuse/dirent.h"

namespace fs3::fuse {
namespace {

constexpr uint32_t kRenameNoReplace = 1;
constexpr uint32_t kRenameExchange = 2;

// Grows with every call. The kernel tells changed content by mtime: of two writes in one tick of a
// coarse clock it would miss the second, and keep pages that it read between them.
int64_t wall_ns() {
  static std::atomic<int64_t> last{0};
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  int64_t now = time.tv_sec * kNsPerSecond + time.tv_nsec;
  int64_t before = last.load(std::memory_order_relaxed);
  int64_t next;
  do {
    next = std::max(now, before + 1);
  } while (!last.compare_exchange_weak(before, next, std::memory_order_relaxed));
  return next;
}

void set_mtime(fuse_attr& attr, SplitTime time) {
  attr.mtime = time.seconds;
  attr.mtimensec = time.nanoseconds;
}

void touch(fuse_attr& attr) {
  SplitTime now = split_time(wall_ns());
  set_mtime(attr, now);
  attr.ctime = now.seconds;
  attr.ctimensec = now.nanoseconds;
}

void touch_ctime(fuse_attr& attr) {
  SplitTime now = split_time(wall_ns());
  attr.ctime = now.seconds;
  attr.ctimensec = now.nanoseconds;
}

bool is_directory(const fuse_attr& attr) { return S_ISDIR(attr.mode); }

// What write and truncate by somebody without CAP_FSETID take away.
void kill_privileges(fuse_attr& attr) {
  attr.mode &= ~static_cast<uint32_t>(S_ISUID);
  if (attr.mode & S_IXGRP) attr.mode &= ~static_cast<uint32_t>(S_ISGID);
}

void finish(RequestPtr request, int error, const void* data, size_t length) {
  if (error != 0) return reply_error(std::move(request), error);
  reply_bytes(std::move(request), data, length);
}

}  // namespace

MemoryFs::MemoryFs(MemoryFsOptions options) : options_(options) {
  Inode& root = inodes_[FUSE_ROOT_ID];
  root.attr.ino = FUSE_ROOT_ID;
  root.attr.mode = S_IFDIR | 0755;
  root.attr.nlink = 2;
  root.attr.blksize = kPageBytes;
  root.parent = FUSE_ROOT_ID;
  root.lookups = 1;
  touch(root.attr);
}

void MemoryFs::handle(RequestPtr request) {
  switch (request->opcode()) {
    case FUSE_LOOKUP:
      return lookup(std::move(request));
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return forget(std::move(request));
    case FUSE_GETATTR:
      return getattr(std::move(request));
    case FUSE_SETATTR:
      return setattr(std::move(request));
    case FUSE_READLINK:
      return readlink(std::move(request));
    case FUSE_SYMLINK:
      return symlink(std::move(request));
    case FUSE_MKNOD:
      return mknod(std::move(request));
    case FUSE_MKDIR:
      return mkdir(std::move(request));
    case FUSE_UNLINK:
    case FUSE_RMDIR:
      return remove(std::move(request));
    case FUSE_RENAME:
    case FUSE_RENAME2:
      return rename(std::move(request));
    case FUSE_LINK:
      return link(std::move(request));
    case FUSE_OPEN:
    case FUSE_OPENDIR:
      return open(std::move(request));
    case FUSE_CREATE:
      return create(std::move(request));
    case FUSE_READ:
      return read(std::move(request));
    case FUSE_WRITE:
      return write(std::move(request));
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
      return release(std::move(request));
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return readdir(std::move(request));
    case FUSE_STATFS:
      return statfs(std::move(request));
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
      return reply_error(std::move(request), 0);
    default:
      return reply_error(std::move(request), ENOSYS);
  }
}

MemoryFs::Inode* MemoryFs::find(uint64_t node) {
  auto found = inodes_.find(node);
  return found == inodes_.end() ? nullptr : &found->second;
}

MemoryFs::Inode* MemoryFs::find_entry(Inode& directory, std::string_view name) {
  auto found = directory.entries.find(name);
  return found == directory.entries.end() ? nullptr : find(found->second.node);
}

void MemoryFs::add_dentry(Inode& directory, std::string_view name, uint64_t node) {
  uint64_t cookie = directory.next_cookie++;
  directory.entries.emplace(name, Dentry{node, cookie});
  directory.order.emplace(cookie, name);
}

void MemoryFs::remove_dentry(Inode& directory, std::string_view name) {
  auto found = directory.entries.find(name);
  directory.order.erase(found->second.cookie);
  directory.entries.erase(found);
}

void MemoryFs::fill_entry(Inode& inode, fuse_entry_out* out) {
  out->nodeid = inode.attr.ino;
  out->attr = inode.attr;
  set_entry_timeout(*out, options_.ttl_ns, options_.ttl_ns);
  ++inode.lookups;
}

void MemoryFs::lookup(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  fuse_entry_out out{};
  int error = ENOENT;
  {
    std::lock_guard lock(mutex_);
    Inode* parent = find(request->node());
    Inode* inode = parent == nullptr ? nullptr : find_entry(*parent, name);
    if (inode != nullptr) {
      fill_entry(*inode, &out);
      error = 0;
    }
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::forget(RequestPtr request) {
  {
    std::lock_guard lock(mutex_);
    auto drop = [this](uint64_t node, uint64_t count) {
      Inode* inode = find(node);
      if (inode == nullptr) return;
      inode->lookups -= std::min(inode->lookups, count);
      collect(node);
    };
    if (request->opcode() == FUSE_FORGET) {
      drop(request->node(), request->arguments<fuse_forget_in>().nlookup);
    } else {
      Bytes payload = request->payload();
      for (; payload.size() >= sizeof(fuse_forget_one);
           payload = payload.subspan(sizeof(fuse_forget_one))) {
        fuse_forget_one one;
        std::memcpy(&one, payload.data(), sizeof one);
        drop(one.nodeid, one.nlookup);
      }
    }
  }
  reply_nothing(std::move(request));
}

// Removes an inode that has no name, no user in the kernel and no open handle.
void MemoryFs::collect(uint64_t node) {
  Inode* inode = find(node);
  if (inode == nullptr || node == FUSE_ROOT_ID) return;
  if (inode->attr.nlink != 0 || inode->lookups != 0 || inode->opens != 0) return;
  resize(*inode, 0);
  inodes_.erase(node);
}

void MemoryFs::getattr(RequestPtr request) {
  fuse_attr_out out{};
  int error = ENOENT;
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) {
      out.attr = inode->attr;
      error = 0;
    }
  }
  SplitTime ttl = split_time(options_.ttl_ns);
  out.attr_valid = ttl.seconds;
  out.attr_valid_nsec = ttl.nanoseconds;
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::setattr(RequestPtr request) {
  fuse_attr_out out{};
  int error = ENOENT;
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) {
      error = do_setattr(*inode, request->arguments<fuse_setattr_in>());
      out.attr = inode->attr;
    }
  }
  SplitTime ttl = split_time(options_.ttl_ns);
  out.attr_valid = ttl.seconds;
  out.attr_valid_nsec = ttl.nanoseconds;
  finish(std::move(request), error, &out, sizeof out);
}

int MemoryFs::do_setattr(Inode& inode, const fuse_setattr_in& in) {
  fuse_attr& attr = inode.attr;
  if (in.valid & FATTR_SIZE) {
    if (is_directory(attr)) return EISDIR;
    if (in.size > options_.capacity_bytes) return EFBIG;
    resize(inode, in.size);
    touch(attr);
  }
  if (in.valid & FATTR_MODE) attr.mode = (attr.mode & S_IFMT) | (in.mode & 07777);
  if (in.valid & FATTR_UID) attr.uid = in.uid;
  if (in.valid & FATTR_GID) attr.gid = in.gid;
  if (in.valid & FATTR_KILL_SUIDGID) kill_privileges(attr);
  SplitTime now = split_time(wall_ns());
  if (in.valid & FATTR_ATIME) {
    bool use_now = in.valid & FATTR_ATIME_NOW;
    attr.atime = use_now ? now.seconds : in.atime;
    attr.atimensec = use_now ? now.nanoseconds : in.atimensec;
  }
  if (in.valid & FATTR_MTIME) {
    bool use_now = in.valid & FATTR_MTIME_NOW;
    set_mtime(attr, use_now ? now : SplitTime{in.mtime, in.mtimensec});
  }
  touch_ctime(attr);
  return 0;
}

void MemoryFs::resize(Inode& inode, uint64_t size) {
  size_t blocks = static_cast<size_t>((size + kBlockBytes - 1) / kBlockBytes);
  for (size_t i = blocks; i < inode.blocks.size(); ++i) {
    if (inode.blocks[i]) used_bytes_ -= kBlockBytes;
  }
  inode.blocks.resize(blocks);
  size_t tail = size % kBlockBytes;
  if (size < inode.attr.size && tail != 0 && inode.blocks.back()) {
    std::memset(inode.blocks.back().get() + tail, 0, kBlockBytes - tail);
  }
  inode.attr.size = size;
  inode.attr.blocks = (size + 511) / 512;
}

void MemoryFs::readlink(RequestPtr request) {
  std::string target;
  int error = EINVAL;
  {
    std::lock_guard lock(mutex_);
    Inode* inode = find(request->node());
    if (inode != nullptr && S_ISLNK(inode->attr.mode)) {
      target = inode->target;
      error = 0;
    }
  }
  finish(std::move(request), error, target.data(), target.size());
}

int MemoryFs::do_create(const Request& request, std::string_view name, uint32_t mode, uint32_t rdev,
                        fuse_entry_out* out) {
  Inode* parent = find(request.node());
  if (parent == nullptr) return ENOENT;
  if (parent->entries.contains(name)) return EEXIST;
  uint64_t node = next_node_++;
  Inode& inode = inodes_[node];
  inode.attr.ino = node;
  inode.attr.mode = mode;
  inode.attr.uid = request.uid();
  bool inherit = parent->attr.mode & S_ISGID;
  inode.attr.gid = inherit ? parent->attr.gid : request.gid();
  if (inherit && S_ISDIR(mode)) inode.attr.mode |= S_ISGID;
  inode.attr.rdev = rdev;
  inode.attr.nlink = S_ISDIR(mode) ? 2 : 1;
  inode.attr.blksize = kPageBytes;
  touch(inode.attr);
  inode.attr.atime = inode.attr.mtime;
  inode.attr.atimensec = inode.attr.mtimensec;
  inode.parent = request.node();
  add_dentry(*parent, name, node);
  if (S_ISDIR(mode)) ++parent->attr.nlink;
  touch(parent->attr);
  fill_entry(inode, out);
  return 0;
}

void MemoryFs::symlink(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name, target;
  int error = take_name(payload, &name);
  if (error == 0) error = take_string(payload, &target, kSymlinkMax);
  if (error != 0) return reply_error(std::move(request), error);
  fuse_entry_out out{};
  {
    std::lock_guard lock(mutex_);
    error = do_create(*request, name, S_IFLNK | 0777, 0, &out);
    if (error == 0) {
      Inode& inode = *find(out.nodeid);
      inode.target = target;
      inode.attr.size = out.attr.size = target.size();
    }
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::mknod(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  const auto& in = request->arguments<fuse_mknod_in>();
  fuse_entry_out out{};
  int error;
  {
    std::lock_guard lock(mutex_);
    error = do_create(*request, name, in.mode & ~in.umask, in.rdev, &out);
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::mkdir(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  const auto& in = request->arguments<fuse_mkdir_in>();
  fuse_entry_out out{};
  int error;
  {
    std::lock_guard lock(mutex_);
    error = do_create(*request, name, S_IFDIR | (in.mode & ~in.umask & 07777), 0, &out);
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::remove(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  int error;
  {
    std::lock_guard lock(mutex_);
    error = do_remove(request->node(), name, request->opcode() == FUSE_RMDIR);
  }
  reply_error(std::move(request), error);
}

int MemoryFs::do_remove(uint64_t parent_node, std::string_view name, bool directory) {
  Inode* parent = find(parent_node);
  if (parent == nullptr) return ENOENT;
  Inode* inode = find_entry(*parent, name);
  if (inode == nullptr) return ENOENT;
  if (directory && !is_directory(inode->attr)) return ENOTDIR;
  if (!directory && is_directory(inode->attr)) return EISDIR;
  if (directory && !inode->entries.empty()) return ENOTEMPTY;
  uint64_t node = inode->attr.ino;
  remove_dentry(*parent, name);
  if (directory) --parent->attr.nlink;
  touch(parent->attr);
  drop_link(node);
  return 0;
}

void MemoryFs::drop_link(uint64_t node) {
  Inode& inode = *find(node);
  inode.attr.nlink -= is_directory(inode.attr) ? 2 : 1;
  touch_ctime(inode.attr);
  collect(node);
}

void MemoryFs::rename(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name, new_name;
  int error = take_name(payload, &name);
  if (error == 0) error = take_name(payload, &new_name);
  if (error != 0) return reply_error(std::move(request), error);
  bool second = request->opcode() == FUSE_RENAME2;
  uint64_t new_parent = second ? request->arguments<fuse_rename2_in>().newdir
                               : request->arguments<fuse_rename_in>().newdir;
  uint32_t flags = second ? request->arguments<fuse_rename2_in>().flags : 0;
  {
    std::lock_guard lock(mutex_);
    error = do_rename(request->node(), name, new_parent, new_name, flags);
  }
  reply_error(std::move(request), error);
}

int MemoryFs::do_rename(uint64_t parent_node, std::string_view name, uint64_t new_parent_node,
                        std::string_view new_name, uint32_t flags) {
  if (flags & ~(kRenameNoReplace | kRenameExchange)) return EINVAL;
  Inode* parent = find(parent_node);
  Inode* new_parent = find(new_parent_node);
  Inode* inode = parent == nullptr ? nullptr : find_entry(*parent, name);
  if (inode == nullptr || new_parent == nullptr) return ENOENT;
  Inode* replaced = find_entry(*new_parent, new_name);
  if (replaced == inode) return 0;
  if (flags & kRenameExchange) {
    if (replaced == nullptr) return ENOENT;
    std::swap(parent->entries.find(name)->second.node,
              new_parent->entries.find(new_name)->second.node);
    parent->attr.nlink += is_directory(replaced->attr) - is_directory(inode->attr);
    new_parent->attr.nlink += is_directory(inode->attr) - is_directory(replaced->attr);
    std::swap(inode->parent, replaced->parent);
  } else {
    if (replaced != nullptr) {
      if (flags & kRenameNoReplace) return EEXIST;
      if (is_directory(inode->attr) && !is_directory(replaced->attr)) return ENOTDIR;
      int error = do_remove(new_parent_node, new_name, is_directory(inode->attr));
      if (error != 0) return error;
    }
    uint64_t node = inode->attr.ino;
    remove_dentry(*parent, name);
    add_dentry(*new_parent, new_name, node);
    parent->attr.nlink -= is_directory(inode->attr);
    new_parent->attr.nlink += is_directory(inode->attr);
    inode->parent = new_parent_node;
  }
  touch(parent->attr);
  touch(new_parent->attr);
  touch_ctime(inode->attr);
  return 0;
}

void MemoryFs::link(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  uint64_t node = request->arguments<fuse_link_in>().oldnodeid;
  fuse_entry_out out{};
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    Inode* parent = find(request->node());
    Inode* inode = find(node);
    if (parent == nullptr || inode == nullptr) {
      error = ENOENT;
    } else if (is_directory(inode->attr)) {
      error = EPERM;
    } else if (parent->entries.contains(name)) {
      error = EEXIST;
    } else {
      add_dentry(*parent, name, node);
      ++inode->attr.nlink;
      touch_ctime(inode->attr);
      touch(parent->attr);
      fill_entry(*inode, &out);
    }
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::open(RequestPtr request) {
  const auto& in = request->arguments<fuse_open_in>();
  fuse_open_out out{};
  int error = ENOENT;
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) {
      if (request->opcode() == FUSE_OPEN && (in.flags & O_TRUNC)) {
        resize(*inode, 0);
        touch(inode->attr);
        if (in.open_flags & FUSE_OPEN_KILL_SUIDGID) kill_privileges(inode->attr);
      }
      ++inode->opens;
      error = 0;
    }
  }
  if (request->opcode() == FUSE_OPEN) {
    bool direct = options_.direct_io || (in.flags & O_DIRECT);
    out.open_flags = direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE;
    out.open_flags |= FOPEN_NOFLUSH;
  }
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::create(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  const auto& in = request->arguments<fuse_create_in>();
  struct {
    fuse_entry_out entry{};
    fuse_open_out open{};
  } out;
  int error;
  {
    std::lock_guard lock(mutex_);
    error = do_create(*request, name, S_IFREG | (in.mode & ~in.umask & 07777), 0, &out.entry);
    if (error == 0) ++find(out.entry.nodeid)->opens;
  }
  bool direct = options_.direct_io || (in.flags & O_DIRECT);
  out.open.open_flags = FOPEN_NOFLUSH | (direct ? FOPEN_DIRECT_IO : FOPEN_KEEP_CACHE);
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::release(RequestPtr request) {
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) {
      if (inode->opens > 0) --inode->opens;
      collect(request->node());
    }
  }
  reply_error(std::move(request), 0);
}

size_t MemoryFs::do_read(const Inode& inode, uint64_t offset, std::byte* into,
                         size_t length) const {
  if (offset >= inode.attr.size) return 0;
  length = std::min<uint64_t>(length, inode.attr.size - offset);
  for (size_t done = 0; done < length;) {
    size_t block = static_cast<size_t>((offset + done) / kBlockBytes);
    size_t within = (offset + done) % kBlockBytes;
    size_t part = std::min(length - done, kBlockBytes - within);
    const auto& bytes = inode.blocks[block];
    if (bytes) {
      std::memcpy(into + done, bytes.get() + within, part);
    } else {
      std::memset(into + done, 0, part);
    }
    done += part;
  }
  return length;
}

void MemoryFs::read(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  if (in.size > kMaxTransfer) return reply_error(std::move(request), EINVAL);
  std::byte* space = request->reply_space(in.size);
  size_t length = 0;
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) length = do_read(*inode, in.offset, space, in.size);
  }
  reply_filled(std::move(request), space, length);
}

int MemoryFs::do_write(Inode& inode, uint64_t offset, Bytes data) {
  if (offset > options_.capacity_bytes || data.size() > options_.capacity_bytes - offset) {
    return EFBIG;
  }
  if (offset + data.size() > inode.attr.size) resize(inode, offset + data.size());
  for (size_t done = 0; done < data.size();) {
    auto& block = inode.blocks[static_cast<size_t>((offset + done) / kBlockBytes)];
    size_t within = (offset + done) % kBlockBytes;
    size_t part = std::min(data.size() - done, kBlockBytes - within);
    if (!block) {
      if (used_bytes_ + kBlockBytes > options_.capacity_bytes) return ENOSPC;
      block = std::make_unique<std::byte[]>(kBlockBytes);
      used_bytes_ += kBlockBytes;
    }
    std::memcpy(block.get() + within, data.data() + done, part);
    done += part;
  }
  touch(inode.attr);
  return 0;
}

void MemoryFs::write(RequestPtr request) {
  const auto& in = request->arguments<fuse_write_in>();
  if (in.size > request->payload().size()) return reply_error(std::move(request), EINVAL);
  int error = ENOENT;
  {
    std::lock_guard lock(mutex_);
    if (Inode* inode = find(request->node())) {
      error = do_write(*inode, in.offset, request->payload().first(in.size));
      if (in.write_flags & FUSE_WRITE_KILL_SUIDGID) kill_privileges(inode->attr);
    }
  }
  fuse_write_out out{.size = in.size, .padding = 0};
  finish(std::move(request), error, &out, sizeof out);
}

void MemoryFs::readdir(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  size_t size = std::min(in.size, kMaxTransfer);
  std::byte* space = request->reply_space(size);
  DirentPacker packer(space, size);
  {
    std::lock_guard lock(mutex_);
    if (Inode* directory = find(request->node())) {
      do_readdir(*directory, in.offset, request->opcode() == FUSE_READDIRPLUS, packer);
    }
  }
  reply_filled(std::move(request), space, packer.used());
}

void MemoryFs::do_readdir(Inode& directory, uint64_t offset, bool plus, DirentPacker& packer) {
  auto add = [&](std::string_view name, Inode& inode, uint64_t cookie, bool counted) {
    uint32_t type = IFTODT(inode.attr.mode);
    if (!plus) return packer.add(name, inode.attr.ino, type, cookie);
    fuse_entry_out entry{};
    // Lookups are counted for what the kernel will forget one day: not for "." and "..".
    if (counted) fill_entry(inode, &entry);
    if (packer.add_plus(name, inode.attr.ino, type, cookie, entry)) return true;
    if (counted) --inode.lookups;
    return false;
  };
  if (offset < 1 && !add(".", directory, 1, false)) return;
  if (offset < 2 && !add("..", *find(directory.parent), 2, false)) return;
  for (auto entry = directory.order.upper_bound(std::max<uint64_t>(offset, 2));
       entry != directory.order.end(); ++entry) {
    Inode& inode = *find(directory.entries.find(entry->second)->second.node);
    if (!add(entry->second, inode, entry->first, true)) return;
  }
}

void MemoryFs::statfs(RequestPtr request) {
  fuse_statfs_out out{};
  {
    std::lock_guard lock(mutex_);
    out.st.bsize = out.st.frsize = kPageBytes;
    out.st.blocks = options_.capacity_bytes / kPageBytes;
    out.st.bfree = out.st.bavail = (options_.capacity_bytes - used_bytes_) / kPageBytes;
    out.st.files = UINT32_MAX;
    out.st.ffree = UINT32_MAX - inodes_.size();
    out.st.namelen = kNameMax;
  }
  reply_value(std::move(request), out);
}

}  // namespace fs3::fuse
