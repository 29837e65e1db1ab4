#include "fuse/request.h"

#include <cerrno>

namespace fs3::fuse {

void DropRequest::operator()(Request* request) const { request->finish(EIO, nullptr, 0); }

void Request::set_root(uint64_t inode) {
  if (header_.nodeid == FUSE_ROOT_ID) header_.nodeid = inode;
  // The other directory of a rename is the first field of both its forms.
  if (opcode() != FUSE_RENAME && opcode() != FUSE_RENAME2) return;
  uint64_t directory;
  FS3_CHECK(operation_.size() >= sizeof directory);
  std::memcpy(&directory, operation_.data(), sizeof directory);
  // The memory is the request's own.
  auto* own = const_cast<std::byte*>(operation_.data());
  if (directory == FUSE_ROOT_ID) std::memcpy(own, &inode, sizeof inode);
}

void reply_error(RequestPtr request, int error) { request.release()->finish(error, nullptr, 0); }

void reply_bytes(RequestPtr request, const void* data, size_t length) {
  request.release()->finish(0, data, length);
}

void reply_filled(RequestPtr request, const std::byte* space, size_t length) {
  request.release()->finish(0, space, length);
}

void reply_nothing(RequestPtr request) { request.release()->finish_without_reply(); }

}  // namespace fs3::fuse
