// MemoryFs: a complete file system in this process's memory. The first rung: it proves the session
// without a cluster, and its speed is the ceiling of what a mount can reach.
//
// Thread safety: everything under one mutex, held for memory operations only and never across a
// reply. Permissions are left to the kernel (default_permissions).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "fuse/dirent.h"
#include "fuse/filesystem.h"

namespace fs3::fuse {

struct MemoryFsOptions {
  int64_t ttl_ns = 1'000'000'000;  // how long the kernel may believe names and attributes
  bool direct_io = false;          // every open bypasses the page cache
  uint64_t capacity_bytes = 1ull << 30;
};

class MemoryFs : public Filesystem {
 public:
  explicit MemoryFs(MemoryFsOptions options);
  void handle(RequestPtr request) override;

 private:
  static constexpr size_t kBlockBytes = 1u << 20;
  // Listing offsets: 1 is after ".", 2 after "..", then cookies.
  static constexpr uint64_t kFirstCookie = 3;
  struct Dentry {
    uint64_t node;
    uint64_t cookie;  // position in the listing: grows, never reused
  };
  struct Inode {
    fuse_attr attr{};
    // Directories.
    uint64_t parent = 0;
    std::map<std::string, Dentry, std::less<>> entries;
    std::map<uint64_t, std::string> order;  // cookie -> name
    uint64_t next_cookie = kFirstCookie;
    // Symbolic links.
    std::string target;
    // Files; null is a hole.
    std::vector<std::unique_ptr<std::byte[]>> blocks;
    uint64_t lookups = 0;
    uint64_t opens = 0;
  };

  void lookup(RequestPtr request);
  void forget(RequestPtr request);
  void getattr(RequestPtr request);
  void setattr(RequestPtr request);
  void readlink(RequestPtr request);
  void symlink(RequestPtr request);
  void mknod(RequestPtr request);
  void mkdir(RequestPtr request);
  void remove(RequestPtr request);
  void rename(RequestPtr request);
  void link(RequestPtr request);
  void open(RequestPtr request);
  void create(RequestPtr request);
  void read(RequestPtr request);
  void write(RequestPtr request);
  void release(RequestPtr request);
  void readdir(RequestPtr request);
  void statfs(RequestPtr request);

  // The work behind them: errno, with the mutex held.
  int do_create(const Request& request, std::string_view name, uint32_t mode, uint32_t rdev,
                fuse_entry_out* out);
  int do_remove(uint64_t parent, std::string_view name, bool directory);
  int do_rename(uint64_t parent, std::string_view name, uint64_t new_parent,
                std::string_view new_name, uint32_t flags);
  int do_setattr(Inode& inode, const fuse_setattr_in& in);
  int do_write(Inode& inode, uint64_t offset, Bytes data);
  void do_readdir(Inode& directory, uint64_t offset, bool plus, DirentPacker& packer);
  size_t do_read(const Inode& inode, uint64_t offset, std::byte* into, size_t length) const;

  Inode* find(uint64_t node);
  Inode* find_entry(Inode& directory, std::string_view name);
  static void add_dentry(Inode& directory, std::string_view name, uint64_t node);
  static void remove_dentry(Inode& directory, std::string_view name);
  void fill_entry(Inode& inode, fuse_entry_out* out);
  void resize(Inode& inode, uint64_t size);
  void drop_link(uint64_t node);
  void collect(uint64_t node);

  const MemoryFsOptions options_;
  std::mutex mutex_;  // guards everything below
  std::unordered_map<uint64_t, Inode> inodes_;
  uint64_t next_node_ = FUSE_ROOT_ID + 1;
  uint64_t used_bytes_ = 0;
};

}  // namespace fs3::fuse
