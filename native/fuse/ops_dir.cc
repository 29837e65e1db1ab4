// Listings: opendir, readdir, readdirplus, releasedir.
#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/reactor.h"
#include "fuse/cluster_fs.h"

namespace fs3::fuse {
namespace {

uint32_t dirent_type(pb::FileType type) {
  switch (type) {
    case pb::DIRECTORY:
      return DT_DIR;
    case pb::LINK_SYMBOLIC:
      return DT_LNK;
    case pb::FIFO:
      return DT_FIFO;
    case pb::SOCKET:
      return DT_SOCK;
    case pb::CHAR_DEVICE:
      return DT_CHR;
    case pb::BLOCK_DEVICE:
      return DT_BLK;
    case pb::FILE:
      return DT_REG;
    default:
      return DT_UNKNOWN;
  }
}

// Offsets up to ".." are before the first entry.
uint64_t cookie_of(uint64_t offset) { return offset <= kOffsetDotDot ? 0 : offset; }

}  // namespace

// The kernel has checked the mode; the service checks it again with each page.
void ClusterFs::opendir(RequestPtr request) {
  fuse_open_out out{};
  bool no_atime = request->arguments<fuse_open_in>().flags & O_NOATIME;
  out.fh = directories_.add(request->node(), no_atime);
  if (out.fh == 0) return reply_error(std::move(request), ENFILE);
  reply_value(std::move(request), out);
}

void ClusterFs::releasedir(RequestPtr request) {
  directories_.remove(request->arguments<fuse_release_in>().fh);
  reply_error(std::move(request), 0);
}

void ClusterFs::readdir(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  DirectoryPtr directory = directories_.find(in.fh, request->node(), in.flags & O_NOATIME);
  if (directory == nullptr) return reply_error(std::move(request), EBADF);
  if (in.size > kMaxTransfer) return reply_error(std::move(request), EINVAL);
  if (!directory->no_atime) access_times_.read(directory->inode);
  std::string caller = callers_.of(*request);
  {
    std::lock_guard lock(directory->mutex);
    directory->caller = std::move(caller);
    // rewinddir(3) must see what is there now.
    if (in.offset == 0) {
      directory->current = directory->ahead = nullptr;
      ++directory->generation;
    }
  }
  serve(std::move(directory), std::move(request));
}

// Answers from a page that is here, or fetches the one that is needed and comes back.
void ClusterFs::serve(DirectoryPtr directory, RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  bool plus = request->opcode() == FUSE_READDIRPLUS;
  uint64_t cookie = cookie_of(in.offset);
  PagePtr page;
  {
    std::lock_guard lock(directory->mutex);
    for (PagePtr candidate : {directory->current, directory->ahead}) {
      if (candidate == nullptr || candidate->position(cookie) < 0) continue;
      bool exhausted = candidate->position(cookie) == candidate->reply.entries_size();
      if (exhausted && !candidate->reply.end()) continue;  // the rest is on the next page
      page = candidate;
    }
    if (page != nullptr && page == directory->ahead) {
      directory->current = std::exchange(directory->ahead, nullptr);
    }
    if (page == nullptr && directory->fetching_ahead && directory->ahead_after == cookie) {
      directory->waiting.push_back(std::move(request));
      return;
    }
  }
  if (page == nullptr) return fetch(std::move(directory), cookie, plus, std::move(request));
  std::byte* space = request->reply_space(in.size);
  auto position = static_cast<size_t>(page->position(cookie));
  size_t used = pack(*directory, *page, in.offset, plus, space, in.size, &position);
  fetch_ahead(directory, page, position);
  reply_filled(std::move(request), space, used);
}

// Returns the bytes used; `position` moves behind the last entry that was packed.
size_t ClusterFs::pack(Directory& directory, const DirectoryPage& page, uint64_t offset, bool plus,
                       std::byte* space, size_t size, size_t* position) {
  DirentPacker packer(space, size);
  auto add_dots = [&](std::string_view name, uint64_t inode, uint64_t next) {
    if (!plus) return packer.add(name, inode, DT_DIR, next);
    return packer.add_plus(name, inode, DT_DIR, next, fuse_entry_out{});
  };
  uint64_t parent = page.reply.parent() == 0 ? directory.inode : page.reply.parent();
  if (offset < kOffsetDot && !add_dots(".", directory.inode, kOffsetDot)) return packer.used();
  if (offset < kOffsetDotDot && !add_dots("..", parent, kOffsetDotDot)) return packer.used();
  while (*position < static_cast<size_t>(page.reply.entries_size())) {
    const pb::DirEntry& entry = page.reply.entries(static_cast<int>(*position));
    if (!pack_entry(directory, page, entry, plus, packer)) break;
    ++*position;
  }
  return packer.used();
}

// An entry's attributes are passed on only while they are certainly not older than what this mount
// did since; otherwise the kernel gets the name alone and asks for the rest when it needs it.
bool ClusterFs::pack_entry(Directory& directory, const DirectoryPage& page,
                           const pb::DirEntry& entry, bool plus, DirentPacker& packer) {
  uint32_t type = dirent_type(entry.type());
  if (!plus) return packer.add(entry.name(), entry.inode(), type, entry.cookie());
  fuse_entry_out out{};
  int64_t now = now_ns();
  int64_t ttl = ttl_ns(page.reply.lease(), now - page.asked_ns);
  bool fresh = page.attributes && entry.has_attr() && ttl > 0 &&
               !nodes_.changed_since(directory.inode, page.asked_ns) &&
               !nodes_.changed_since(entry.inode(), page.asked_ns);
  if (!fresh) return packer.add_plus(entry.name(), entry.inode(), type, entry.cookie(), out);
  fill_entry(entry.attr(), ttl, &out);
  if (!packer.add_plus(entry.name(), entry.inode(), type, entry.cookie(), out)) return false;
  told(entry.attr(), ttl, 1);
  return true;
}

void ClusterFs::fetch(DirectoryPtr directory, uint64_t after, bool attributes, RequestPtr waiting) {
  pb::ReaddirRequest body;
  body.set_inode(directory->inode);
  body.set_cookie(after);
  body.set_limit(kPageEntries);
  body.set_attributes(attributes);
  int64_t asked_ns = now_ns();
  call_for<pb::ReaddirReply>(
      std::move(waiting), pb::READDIR, body,
      [this, directory, after, attributes, asked_ns](RequestPtr request, pb::ReaddirReply& reply) {
        auto page = std::make_shared<DirectoryPage>();
        page->after = after;
        page->attributes = attributes;
        page->asked_ns = asked_ns;
        page->reply.Swap(&reply);
        // A page that does not move on would be asked for for ever.
        if (page->reply.entries().empty()) page->reply.set_end(true);
        {
          std::lock_guard lock(directory->mutex);
          directory->current = std::move(page);
          directory->ahead = nullptr;
        }
        serve(directory, std::move(request));
      });
}

// When half of a page is read, the next one is asked for.
void ClusterFs::fetch_ahead(const DirectoryPtr& directory, const PagePtr& page, size_t position) {
  if (page->reply.end() || position * 2 < static_cast<size_t>(page->reply.entries_size())) return;
  uint64_t after = page->last_cookie();
  auto next = std::make_shared<DirectoryPage>();
  std::string caller;
  {
    std::lock_guard lock(directory->mutex);
    if (directory->fetching_ahead || directory->ahead != nullptr) return;
    directory->fetching_ahead = true;
    directory->ahead_after = after;
    caller = directory->caller;
    next->generation = directory->generation;
  }
  pb::ReaddirRequest body;
  body.set_inode(directory->inode);
  body.set_cookie(after);
  body.set_limit(kPageEntries);
  body.set_attributes(page->attributes);
  next->after = after;
  next->attributes = page->attributes;
  next->asked_ns = now_ns();
  client_->meta_call(pb::READDIR, std::move(caller), 0, body.SerializeAsString(),
                     [this, directory, next](Result<std::string> reply) {
                       fetched_ahead(directory, next, std::move(reply));
                     });
}

void ClusterFs::fetched_ahead(const DirectoryPtr& directory,
                              const std::shared_ptr<DirectoryPage>& page,
                              Result<std::string> reply) {
  bool usable = reply.ok() && page->reply.ParseFromString(*reply);
  std::vector<RequestPtr> waiting;
  {
    std::lock_guard lock(directory->mutex);
    directory->fetching_ahead = false;
    if (page->reply.entries().empty()) page->reply.set_end(true);
    if (usable && page->generation == directory->generation) directory->ahead = page;
    waiting.swap(directory->waiting);
  }
  // Without a page they ask for themselves, and get the error if it is still there.
  for (RequestPtr& request : waiting) serve(directory, std::move(request));
}

}  // namespace fs3::fuse
